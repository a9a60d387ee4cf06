"""POST …/generate and …/generate_stream: inference in plain JSON, with one response or a stream of events."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Final, Protocol

from penstock.errors import InvalidRequest, ModelFailed, PenstockError
from penstock.gateway.asgi import Message, Send, forget_frames
from penstock.gateway.aside import LARGE_BYTES, Aside
from penstock.gateway.generate_request import decode_generate
from penstock.gateway.generate_response import GenerateEncoder, encode_error
from penstock.gateway.http_types import Headers, HttpResponse, header
from penstock.gateway.inference import Inference
from penstock.gateway.outbox import JOIN_BYTES, Outbox, Taken
from penstock.gateway.refusals import http_refusal
from penstock.gateway.request_parameters import EMPTY_FINAL
from penstock.gateway.terms import from_now
from penstock.repository.answers import encoded
from penstock.repository.repository import ModelRepository
from penstock.types import CallTerms
from penstock.workers.request import Answer, Part, PendingRequest

ONE_RESPONSE: Final = (
    "generate expects model to produce exactly 1 response, use generate stream for model that"
    " generates various number of responses"
)
EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"


class Generation:
    """Answers generate requests."""

    def __init__(self, inference: Inference, repository: ModelRepository, aside: Aside) -> None:
        self._inference = inference
        self._repository = repository
        self._aside = aside

    def check(self, name: str, version: str, headers: Headers) -> None:
        """What can be said of a request before its body is read. Raises NotFound, Unavailable, InvalidRequest."""
        self._repository.get(name, version)
        if header(headers, b"content-encoding").lower() not in ("", "identity"):
            raise InvalidRequest("Unsupported content-encoding, only 'identity' is supported.")

    async def submit(
        self,
        name: str,
        version: str,
        body: bytes,
        responses: GeneratedResponses,
        terms: CallTerms,
    ) -> PendingRequest:
        """A request's way in: decode, bind to its model, queue.

        Raises InvalidRequest, Unsupported, NotFound, Unavailable, QueueFull, DeadlineExceeded.
        """
        config = self._repository.get(name, version).config
        if len(body) < LARGE_BYTES:
            head, request_id, buffers = decode_generate(config, version, body)
        else:
            began_ns = time.monotonic_ns()
            head, request_id, buffers = await self._aside.run(
                decode_generate, config, version, body
            )
            terms = from_now(terms, began_ns)
        bound = self._inference.bind(head, terms, request_id)
        wanted = head.parameters.get(EMPTY_FINAL, False)
        responses.encoder = GenerateEncoder(bound.model, tells_final=bool(wanted))
        responses.tells_end = bool(wanted)
        return self._inference.submit(
            bound,
            request_id,
            buffers,
            responses.encoder,
            responses.respond,
            len(body),
            terms,
            responses if bound.model.config.decoupled else None,
        )


class Receiver(Protocol):
    """What becomes of the responses."""

    def take(self, answer: Answer, taken: Taken) -> None:
        """A response, or an error in its place. `taken` is to be called once, when the client's transport has it."""
        ...

    def end(self) -> None:
        """There are no more."""
        ...


class GeneratedResponses:
    """Takes the responses to one generate request to a receiver: its `respond` and `sink`."""

    __slots__ = ("_receiver", "encoder", "tells_end")

    encoder: GenerateEncoder
    """Set before the request is submitted."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.tells_end = False
        """Its client wants to hear of its end also where there is nothing else to say."""

    def respond(self, _: PendingRequest, answer: Answer) -> None:
        """As `Respond` says."""
        if answer:
            self._receiver.take(answer, _nobody_waits)
        self._receiver.end()

    def part(self, request: PendingRequest, part: Part) -> None:
        """As `Sink` says."""
        if part.outputs is None and not (part.final and self.tells_end):
            part.taken()
        else:
            self.encoder.final = part.final
            self._receiver.take(encoded(request, part.outputs or []), part.taken)


class OneResponse:
    """The receiver of a request that must have exactly one response."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        """Fails with the error that it is."""
        self._response: bytes | None = None

    def take(self, answer: Answer, taken: Taken) -> None:
        """As `Receiver` says."""
        if isinstance(answer, PenstockError):
            self._fail(answer)
        elif self._response is None:
            self._response = answer
        else:
            self._fail(ModelFailed(ONE_RESPONSE))
        taken()

    def end(self) -> None:
        """As `Receiver` says."""
        if self._response is None:
            self._fail(ModelFailed(ONE_RESPONSE))
        elif not self.answer.done():
            self.answer.set_result(self._response)

    def _fail(self, error: PenstockError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class EventStream:
    """The receiver of a request whose responses become server-sent events."""

    def __init__(self) -> None:
        self._outbox = Outbox()
        self._refusal: HttpResponse | None = None
        """What the first response would be alone, where it is an error."""
        self._any = False

    def take(self, answer: Answer, taken: Taken) -> None:
        """As `Receiver` says."""
        if isinstance(answer, PenstockError):
            if not self._any:
                self._refusal = http_refusal(answer)
            answer = encode_error(answer)
        self._any = True
        self._outbox.put(b"data: " + answer + b"\n\n", taken)

    def end(self) -> None:
        """As `Receiver` says."""
        self._outbox.close()

    async def write(self, send: Send) -> None:
        """Send all events, as the client takes them. The first one decides the response's status."""
        try:
            events = await self._outbox.next(JOIN_BYTES)
            await send(self._start())
            while events:
                body = b"".join(events)
                await send({"type": "http.response.body", "body": body, "more_body": True})
                events = await self._outbox.next(JOIN_BYTES)
            await send({"type": "http.response.body", "body": b""})
        except OSError as error:
            forget_frames(error)
        finally:
            self._outbox.abandon()

    def _start(self) -> Message:
        refusal = self._refusal
        others = () if refusal is None else refusal.headers
        return {
            "type": "http.response.start",
            "status": int(HTTPStatus.OK if refusal is None else refusal.status),
            "headers": [
                (b"content-type", EVENT_STREAM),
                (b"cache-control", b"no-cache"),
                *((name.encode(), value.encode()) for name, value in others),
            ],
        }


def _nobody_waits() -> None:
    """For a response that is the last one, and the only one that is still to be sent."""
