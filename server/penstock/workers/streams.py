"""What models say of single requests while these run: responses of decoupled models, on their way out of the worker.

A request may have so many responses, and so many bytes of them, on their way that its client has not taken: who sends
more waits. Nothing here keeps a stream alive but the model's own references: one that is dropped ends with an error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Any, Final, Protocol
from weakref import ref

import msgspec
import numpy as np

from penstock.backends.base import CLOSED, Batch, LoadedModel, Outputs, stream_of
from penstock.backends.device_lost import check_device
from penstock.backends.isolation import one_line
from penstock.errors import ModelFailed, PenstockError, Unavailable
from penstock.model_config import ModelConfig
from penstock.tensors import serialize_bytes
from penstock.types import NO_PARAMETERS, Array, Parameter
from penstock.wording import shortened
from penstock.workers.channel import ChannelClosed
from penstock.workers.message import Message, sendable
from penstock.workers.message_parts import RequestError, ResponseTensor
from penstock.workers.scatter import check_all, datatype_of
from penstock.workers.worker_commands import Cancel, Reset, Taken
from penstock.workers.worker_events import Response

log = logging.getLogger(__name__)

WINDOW_RESPONSES: Final = 64
"""Of one request, that its client has not taken yet."""

WINDOW_BYTES: Final = 1 << 20
"""Of these together: while they are fewer, one more goes, however large it is."""

Key = tuple[int, int]
"""A batch, and a request's place in it."""

Tensors = tuple[ResponseTensor, ...]


class Mail(Protocol):
    """What streams need of an Inbox."""

    def on(self, kind: type[Message], handler: Callable[[Any], None], /) -> None: ...
    def on_early(self, kind: type[Message], handler: Callable[[Any], None], /) -> None: ...
    def wait(self, ready: Callable[[], bool], /) -> None: ...
    def pump(self) -> None: ...
    def send(self, message: Message, /) -> None: ...
    def post(self, message: Message, /) -> None: ...


class Lines:
    """The lines of all requests that run in this process."""

    def __init__(self, mail: Mail, before_final: Callable[[], None] = lambda: None) -> None:
        """`before_final` is called before each final response."""
        self.mail = mail
        self.before_final = before_final
        self._streams: dict[Key, ref[ResponseStream]] = {}
        self._cancelled: set[Key] = set()
        """Of batches that run, or wait for that."""
        self._over = 0
        """The newest batch that was executed."""
        self._resets_read = self._resets_done = 0
        """Between reading a Reset and the main loop's turn for it, what begins is a gateway's that is gone."""
        mail.on(Cancel, self._on_cancel)
        mail.on(Taken, self._on_taken)
        mail.on_early(Reset, self._on_reset)

    @property
    def open(self) -> int:
        """Streams without a final response."""
        return len(self._streams)

    def stream(self, batch: int, request: int, config: ModelConfig) -> ResponseStream:
        """Of a request that is about to be run."""
        stream = ResponseStream(self, (batch, request), config)
        self._streams[stream.key] = ref(stream)
        # only now, so that what comes in between is not lost
        stream.cancelled = stream.key in self._cancelled
        if self._resets_read > self._resets_done:
            stream.cut()
        return stream

    def is_cancelled(self, key: Key) -> bool:
        """Whether a request without a stream is."""
        self.look()
        return key in self._cancelled

    def look(self) -> None:
        """Hear what the gateway has said by now."""
        self.mail.pump()

    def executed(self, batch: int) -> None:
        """The batch was executed: nothing is asked of those of its requests that have no streams."""
        self._over = batch
        if self._cancelled:
            # of a copy, for another thread may add to it
            self._cancelled.difference_update([k for k in list(self._cancelled) if k[0] <= batch])

    def ended(self, key: Key) -> None:
        """The stream has had its final response, or nobody wants it."""
        self._streams.pop(key, None)

    def begin_anew(self) -> None:
        """The main loop has a Reset: another gateway begins, whose batches have numbers that were used before."""
        self._resets_done += 1
        self._cut_all()
        self._over = 0
        self._cancelled.clear()

    def _on_cancel(self, message: Cancel) -> None:
        key = message.batch, message.request
        if message.batch > self._over:
            self._cancelled.add(key)
        if (stream := self._stream(key)) is not None:
            stream.cancelled = True

    def _on_taken(self, message: Taken) -> None:
        if (stream := self._stream((message.batch, message.request))) is not None:
            stream.taken += message.responses
            stream.taken_bytes += message.nbytes

    def _on_reset(self, _: Reset) -> None:
        # at once: a thread may wait for a client of the gateway that is gone, and keep the main loop from this message
        self._resets_read += 1
        self._cut_all()

    def _cut_all(self) -> None:
        for held in list(self._streams.values()):
            if (stream := held()) is not None:
                stream.cut()

    def _stream(self, key: Key) -> ResponseStream | None:
        held = self._streams.get(key)
        return None if held is None else held()


class RunningLine(msgspec.Struct, gc=False):
    """A request of a model that gives one response to each. A Struct without the garbage collector, for one is made for
    every request, and refers to nothing that refers to it."""

    lines: Lines
    key: Key
    parameters: Mapping[str, Parameter] = NO_PARAMETERS

    def is_cancelled(self) -> bool:
        """As Line says."""
        return self.lines.is_cancelled(self.key)


class ResponseStream:
    """The responses of one request."""

    __slots__ = (
        "__weakref__",
        "_config",
        "_cut",
        "_ended",
        "_last_ns",
        "_lines",
        "_lock",
        "_order",
        "_sent",
        "_sent_bytes",
        "cancelled",
        "key",
        "parameters",
        "taken",
        "taken_bytes",
    )

    def __init__(self, lines: Lines, key: Key, config: ModelConfig) -> None:
        self._lines = lines
        self.key = key
        self._config = config
        self._order = RLock()
        """Of threads that send: each waits for those before it. Reentrant for the sake of finalizers, as the next."""
        self._lock = RLock()
        """Guards the end: nothing is sent after it."""
        self._ended = False
        self._cut = False
        """Its gateway is gone: nothing is sent any more."""
        self._last_ns = time.perf_counter_ns()
        self.cancelled = False
        self.parameters: Mapping[str, Parameter] = NO_PARAMETERS
        # two counters, each with threads of one side only that write it
        self._sent = self._sent_bytes = 0
        self.taken = self.taken_bytes = 0

    def is_cancelled(self) -> bool:
        """As Line says."""
        self._lines.look()
        return self.cancelled or self._cut

    def send(
        self,
        outputs: Outputs | PenstockError | None,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        final: bool = False,
    ) -> None:
        """As Stream says."""
        began_ns = time.perf_counter_ns()
        tensors, error = self._packed(outputs)
        packed_ns = time.perf_counter_ns()
        nbytes = sum([len(tensor.data) for tensor in tensors or ()])
        with self._order:
            with _while_open():
                if outputs is not None and not self._may_send():
                    self._lines.mail.wait(self._may_send)
                if final and not self._ended:
                    self._lines.before_final()
                times = max(0, began_ns - self._last_ns), packed_ns - began_ns
                self._send(tensors, dict(parameters or ()), error, nbytes, times, final=final)
            self._last_ns = time.perf_counter_ns()

    def fail(self, error: PenstockError) -> None:
        """As Stream says."""
        with self._lock:
            if not self._ended:
                infer_ns = time.perf_counter_ns() - self._last_ns
                told = self._told(error)
                with suppress(ChannelClosed):
                    self._send(None, {}, told, 0, (infer_ns, 0), final=True)

    def cut(self) -> None:
        """Nothing more of it may be sent."""
        with self._lock:
            self._cut = True
        self._lines.ended(self.key)

    def _may_send(self) -> bool:
        """There is room, or it needs none: it is not sent, or not allowed."""
        if self.cancelled or self._cut or self._ended:
            return True
        bytes_on_their_way = self._sent_bytes - self.taken_bytes
        return self._sent - self.taken < WINDOW_RESPONSES and bytes_on_their_way < WINDOW_BYTES

    def _send(
        self,
        tensors: Tensors | None,
        parameters: dict[str, Parameter],
        error: RequestError | None,
        nbytes: int,
        times: tuple[int, int],
        *,
        final: bool,
    ) -> None:
        with self._lock:
            if self._ended:
                raise ModelFailed(CLOSED)
            self._ended = final
            if final:
                self._lines.ended(self.key)
            if self._cut or (self.cancelled and not final):
                return
            if self.cancelled:
                tensors, error = None, None
            self._sent += 1
            self._sent_bytes += nbytes
            batch, request = self.key
            response = Response(batch, request, tensors, parameters, error, final, *times)
            self._lines.mail.send(response)

    def _packed(
        self, outputs: Outputs | PenstockError | None
    ) -> tuple[Tensors | None, RequestError | None]:
        if outputs is None:
            return None, None
        try:
            if isinstance(outputs, PenstockError):
                raise outputs
            signature = {output.name: output for output in self._config.output}
            check_all(self._config, signature, outputs, None)
            return tuple([_packed(name, array) for name, array in outputs.items()]), None
        except (PenstockError, UnicodeEncodeError) as error:
            return None, self._told(error)

    def _told(self, error: Exception) -> RequestError:
        kind = type(error).__name__ if isinstance(error, PenstockError) else "ModelFailed"
        return RequestError(self.key[1], sendable(shortened(str(error))), kind)

    def __del__(self) -> None:
        if self._ended or self._cut:
            return
        self._ended = True
        self._lines.ended(self.key)
        batch, request = self.key
        error = None
        if not self.cancelled:
            text = f"model '{self._config.name}' dropped a request without its final response"
            error = RequestError(request, text)
        infer_ns = time.perf_counter_ns() - self._last_ns
        # at the process's end the socket may be closed already
        with suppress(ChannelClosed, OSError):
            self._lines.mail.post(Response(batch, request, None, {}, error, True, infer_ns, 0))


def run_decoupled(model: LoadedModel, batch: Batch, config: ModelConfig) -> None:
    """Run the batch. What it raises is the end of all requests that did not have theirs yet. Raises DeviceLost."""
    try:
        given = model.execute(batch)
        if given:
            raise ModelFailed(f"model '{config.name}' is decoupled, and returned something")
    except Exception as error:
        check_device(error)
        log.warning("model %s: %s", config.name, error, exc_info=log.isEnabledFor(logging.DEBUG))
        failure = error if isinstance(error, PenstockError) else ModelFailed(one_line(error))
        for request in batch.requests:
            stream_of(request).fail(failure)


@contextmanager
def _while_open() -> Iterator[None]:
    """What a model is told when the channel is closed."""
    try:
        yield
    except ChannelClosed:
        raise Unavailable("the server has closed its connection to the model") from None


def _packed(name: str, array: Array) -> ResponseTensor:
    datatype = datatype_of(array) or ""
    if datatype == "BYTES":
        data = memoryview(serialize_bytes(np.asarray(array, object)))
    else:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return ResponseTensor(name, datatype, array.shape, data)
