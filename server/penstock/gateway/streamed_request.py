"""One request of a ModelStreamInfer call: what its pool answers becomes messages of the stream."""

from __future__ import annotations

from typing import Protocol

from penstock.errors import PenstockError
from penstock.gateway.grpc_stream_response import StreamEncoder, StreamMessages
from penstock.repository.answers import encoded
from penstock.repository.served_model import ServedModel
from penstock.types import OutputTensor
from penstock.workers.request import Answer, Part, PendingRequest


class Responses(Protocol):
    """The stream, as its requests see it."""

    @property
    def over(self) -> bool:
        """Nothing is sent any more."""
        ...

    @property
    def messages(self) -> StreamMessages:
        """Makes what has no outputs."""
        ...

    def part(self, request: StreamedRequest, message: bytes, part: Part) -> None:
        """Send a response after which more may come."""
        ...

    def failed_part(self, request: StreamedRequest, error: PenstockError, part: Part) -> None:
        """Send an error in a response's place."""
        ...

    def finish(self, request: StreamedRequest, answer: Answer) -> None:
        """Send the last response, empty where all of them are sent, and forget the request."""
        ...


class StreamedRequest:
    """A request from when it is read until its last response is with its stream: its encoder, `respond` and `sink`."""

    __slots__ = (
        "_encoder",
        "_final",
        "_stream",
        "answer",
        "decoupled",
        "id",
        "model",
        "nbytes",
        "pending",
        "received_bytes",
        "tells_end",
        "version",
    )

    def __init__(self, stream: Responses, nbytes: int) -> None:
        """`nbytes`: of its message."""
        self._stream = stream
        self._encoder: StreamEncoder | None = None
        self._final = True
        self.received_bytes = self.nbytes = nbytes
        """What it holds: its message and the answer that it is to get, and later its answer."""
        self.id = self.model = self.version = ""
        self.decoupled = False
        """Its responses are sent as they come; those of others in the order of the requests."""
        self.tells_end = False
        """Its client wants to hear of its end also where there is nothing else to say."""
        self.pending: PendingRequest | None = None
        self.answer: Answer | None = None
        """Waits until those of the requests before it are sent."""

    def bind(self, encoder: StreamEncoder, *, decoupled: bool, tells_end: bool) -> None:
        """Its model is known now."""
        self._encoder = encoder
        self.model, self.version = encoder.name, encoder.version
        self.decoupled = decoupled
        self.tells_end = tells_end
        if not decoupled:
            # it is kept until the client takes it
            self.nbytes += encoder.expected_bytes

    @property
    def bound(self) -> bool:
        """Its model is known."""
        return self._encoder is not None

    def cancel(self) -> None:
        """Nobody waits for its responses any more."""
        if self.pending is not None:
            self.pending.cancel()

    def forget(self) -> None:
        """Its last response is sent, or not wanted. It and its pending request know each other: their memory, which may
        be megabytes of inputs and answer, should not wait for a collection that is seldom due."""
        self.pending = self.answer = None

    def answered(self, answer: Answer) -> None:
        """It has its answer, which is not sent yet."""
        self.nbytes = 0
        if not isinstance(answer, PenstockError):
            self.nbytes = len(answer)
            if self._encoder is not None:
                self._encoder.learn(self.nbytes)
        self.answer = answer

    def of(self, model: ServedModel) -> StreamedRequest:
        """As Retargetable."""
        assert self._encoder is not None, "it is bound before it is submitted"
        self._encoder = self._encoder.of(model)
        self.version = self._encoder.version
        return self

    def __call__(self, pending: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """As `Encode` says."""
        assert self._encoder is not None, "it is bound before it is submitted"
        return self._encoder.part(pending, outputs, final=self._final)

    def respond(self, _: PendingRequest, answer: Answer) -> None:
        """As `Respond` says."""
        self._stream.finish(self, answer)

    def part(self, request: PendingRequest, part: Part) -> None:
        """As `Sink` says."""
        stream = self._stream
        if stream.over or (part.outputs is None and not (part.final and self.tells_end)):
            part.taken()
        elif part.outputs is None:
            message = stream.messages.empty(self.id, self.model, self.version)
            stream.part(self, message, part)
        else:
            self._final = part.final
            answer = encoded(request, part.outputs)
            if isinstance(answer, PenstockError):
                stream.failed_part(self, answer, part)
            else:
                stream.part(self, answer, part)
