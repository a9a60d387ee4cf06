"""ModelStreamInfer: requests of any models come in, and their responses go out, at the same time.

A front feeds `InferStream.read` with messages, sends what `InferStream.outbox` gives, and ends the call with `error`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from penstock.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    PenstockError,
    Unavailable,
)
from penstock.gateway.outbox import Outbox
from penstock.gateway.stream_intake import StreamIntake
from penstock.gateway.stream_terms import StreamTerms
from penstock.gateway.streamed_request import StreamedRequest
from penstock.types import CallTerms
from penstock.workers.request import Answer, Part

log = logging.getLogger(__name__)

MAX_REQUESTS: Final = 1024
"""Requests under way, and responses that wait to be sent, of one stream: with more of them no request is read."""

MAX_BYTES: Final = 64 << 20
"""As MAX_REQUESTS, their bytes, and those that answers are expected to have."""

SHUTTING_DOWN: Final = "GRPC server is shutting down and has stopped accepting new requests."


class InferStream:
    """One call. All of it runs on the event loop."""

    def __init__(
        self,
        intake: StreamIntake,
        terms: StreamTerms,
        on_end: Callable[[InferStream], None],
    ) -> None:
        self._intake = intake
        self._terms = terms
        self._on_end = on_end
        self.messages: Final = intake.messages
        self.outbox: Final = Outbox()
        self.outbox.on_room = self._room
        self.over = False
        """Nothing is put into the outbox any more."""
        self.error: PenstockError | None = None
        """What the call ends with when the outbox is empty; None: OK."""
        self.arrived_ns = 0
        """When the client's last request was here; 0: more may come."""
        self._requests: set[StreamedRequest] = set()
        self._in_order: deque[StreamedRequest] = deque()
        """Those that are answered in the order in which they came."""
        self._nbytes = 0
        """That the requests hold."""
        self._draining = False
        self._waiting_for_room: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        if terms.timeout_us is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(terms.timeout_us / 1e6, self._expire)

    # ── how it ends ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def done(self) -> bool:
        """As for a request: nobody has to be told any more that the client left."""
        return self.over

    def cancel(self) -> None:
        """The client is gone, or the call was ended by somebody else: nothing more is sent or run."""
        self._stop(Cancelled("the client is gone"))

    def drain(self) -> None:
        """Read no more requests, and end when those that were read are answered."""
        self._draining = True
        self._end_if_idle()

    def _expire(self) -> None:
        self._stop(DeadlineExceeded("Request timeout expired: the stream's deadline has passed"))

    def _stop(self, error: PenstockError) -> None:
        """End at once: what waits to be sent is dropped."""
        self._end(error)
        self.outbox.abandon()

    def _end(self, error: PenstockError | None) -> None:
        """End when all that waits is sent. Requests that are under way are cancelled."""
        if self.over:
            return
        self.over = True
        self.error = error
        if self._deadline is not None:
            self._deadline.cancel()
        self.outbox.close()
        for request in list(self._requests):
            request.cancel()
            request.forget()
        self._requests.clear()
        self._in_order.clear()
        self._wake_reader()
        self._on_end(self)

    def _end_if_idle(self) -> None:
        if self._requests or self.over:
            return
        if self.arrived_ns:
            self._end(None)
        elif self._draining:
            self._end(Unavailable(SHUTTING_DOWN))

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, messages: AsyncIterator[bytes]) -> None:
        """Take the client's requests until there are no more, or the stream is over."""
        try:
            asked_ns = time.monotonic_ns()
            async for message in messages:
                if self.over or self._draining:
                    return
                await self._take(message, self._terms.of_request(asked_ns))
                while self._full and not self.over:
                    self._waiting_for_room = asyncio.get_running_loop().create_future()
                    await self._waiting_for_room
                asked_ns = time.monotonic_ns()
            self.arrived_ns = time.monotonic_ns()
            self._end_if_idle()
        except PenstockError as error:
            self._stop(error)
        except asyncio.CancelledError:
            self.cancel()
        except Exception:
            log.exception("a stream's requests could not be read")
            self._stop(InternalError("stream not read"))

    async def _take(self, message: bytes, terms: CallTerms) -> None:
        """Decode, bind and submit a request. What is wrong with it, it is answered."""
        request = StreamedRequest(self, len(message))
        self._requests.add(request)
        self._nbytes += request.nbytes
        try:
            decoded = await self._intake.decode(message)
            if self.over:
                return
            before = request.nbytes
            bound = self._intake.bind(request, decoded, terms)
            self._nbytes += request.nbytes - before
            if not request.decoupled:
                self._in_order.append(request)
            self._intake.submit(request, bound, decoded, terms)
        except PenstockError as error:
            if not request.bound:
                await self._intake.identify(request, message)
            self._refuse(request, error)
        except Exception:
            log.exception("a request of a stream could not be submitted")
            self._refuse(request, InternalError("request not submitted"))

    def _refuse(self, request: StreamedRequest, error: PenstockError) -> None:
        if not request.bound:
            self._in_order.append(request)
        self.finish(request, error)

    @property
    def _full(self) -> bool:
        if len(self._requests) + len(self.outbox) >= MAX_REQUESTS:
            return True
        return self._nbytes + self.outbox.nbytes >= MAX_BYTES

    def _room(self) -> None:
        if not self._full:
            self._wake_reader()

    def _wake_reader(self) -> None:
        waiting, self._waiting_for_room = self._waiting_for_room, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # ── responses ───────────────────────────────────────────────────────────────────────────────────────────────────

    def part(self, request: StreamedRequest, message: bytes, part: Part) -> None:
        """As `Responses` says."""
        self.outbox.put(message, part.taken)

    def failed_part(self, request: StreamedRequest, error: PenstockError, part: Part) -> None:
        """As `Responses` says."""
        if self._terms.grpc_errors:
            part.taken()
            self._end(error)
        else:
            self.outbox.put(self._error(request, error, final=part.final), part.taken)

    def finish(self, request: StreamedRequest, answer: Answer) -> None:
        """As `Responses` says."""
        if self.over:
            return
        if request.decoupled:
            self._send_last(request, answer)
        else:
            self._nbytes -= request.nbytes
            request.answered(answer)
            self._nbytes += request.nbytes
            while self._in_order and (due := self._in_order[0].answer) is not None:
                self._send_last(self._in_order.popleft(), due)
                if self.over:
                    return
            self._room()
        self._end_if_idle()

    def _send_last(self, request: StreamedRequest, answer: Answer) -> None:
        self._requests.discard(request)
        self._nbytes -= request.nbytes
        request.forget()
        if not isinstance(answer, PenstockError):
            if answer:
                self.outbox.put(answer)
        elif self._terms.grpc_errors:
            self._end(answer)
        else:
            self.outbox.put(self._error(request, answer, final=True))
        self._room()

    def _error(self, request: StreamedRequest, error: PenstockError, *, final: bool) -> bytes:
        return self.messages.error(error, request.id, request.model, request.version, final=final)
