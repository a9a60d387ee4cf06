"""A worker's way to the server's other models: what its model asks goes to the gateway, and answers come back.

Who waits for an answer reads the worker's channel (see `inbox`). In an event loop nobody may wait: while some task
does, a thread reads for all of them. Who waits for one answer does not hold up those that send others (see `untaken`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from threading import Lock, Thread
from typing import Final, Literal

import msgspec
import numpy as np

from penstock.backends.base import ModelAnswer, ModelRequest
from penstock.backends.byte_arrays import to_byte_array
from penstock.errors import InvalidRequest, ModelFailed, Unavailable
from penstock.tensors import as_array, serialize_bytes
from penstock.types import DATATYPES, Array, Parameter
from penstock.workers.channel import ChannelClosed
from penstock.workers.gather import REQUEST_ERRORS
from penstock.workers.inbox import Inbox
from penstock.workers.message_parts import ResponseTensor
from penstock.workers.untaken import NO_BATCH, Streams, Untaken, User, this_user
from penstock.workers.worker_commands import CallAnswered, Reset
from penstock.workers.worker_events import CallModel, CallTaken, CancelCall, ControlModel

GONE: Final = "the server is gone"


class OtherModels:
    """As `backends.base.OtherModels` says."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._numbers = count(1)
        self._open: dict[int, Call] = {}
        self._streams: Final = Streams()
        self._awaited: set[Call] = set()
        """Those that tasks wait for."""
        self._reads = False
        """A thread reads for them."""
        self._guard: Final = Lock()
        """Of these two: that thread ends only when nobody relies on it."""
        inbox.on(CallAnswered, self._hand_out)
        # another gateway begins, which knows nothing of what this one was asked
        inbox.on_early(Reset, lambda _: self._end_all())

    def ask(self, request: ModelRequest) -> Call:
        """Send a request. Raises InvalidRequest on an input that is no tensor, and on what no message can hold."""
        told = request.model, request.version, request.id, request.outputs, request.parameters
        _check(told, _Asked)
        inputs = tuple([_tensor(name, array) for name, array in request.inputs.items()])
        return self._send(
            request.batch,
            lambda number: CallModel(
                number,
                request.batch,
                request.requests,
                request.model,
                request.version,
                request.id,
                inputs,
                request.outputs,
                dict(request.parameters),
                request.decoupled,
            ),
            decoupled=request.decoupled,
        )

    def check_ready(self, model: str, version: str) -> None:
        """Raises PenstockError where the model can't take requests now."""
        self._control("ready", model, version=version)

    def load(self, model: str, config: str, files: Mapping[str, bytes]) -> None:
        """Load a model, as the model repository extension does. Raises PenstockError."""
        self._control("load", model, config=config, files=files)

    def unload(self, model: str, *, unload_dependents: bool) -> None:
        """Unload a model. Raises PenstockError."""
        self._control("unload", model, unload_dependents=unload_dependents)

    def _control(
        self,
        action: Literal["ready", "load", "unload"],
        model: str,
        *,
        version: str = "",
        config: str = "",
        files: Mapping[str, bytes] | None = None,
        unload_dependents: bool = False,
    ) -> None:
        given = dict(files or {})
        _check((model, version, config, given), _Controlled)
        call = self._send(
            NO_BATCH,
            lambda number: ControlModel(
                number, action, model, version, config, given, unload_dependents
            ),
        )
        error = call.next().error
        if error is not None:
            raise error

    def _send(
        self,
        batch: int,
        make: Callable[[int], CallModel | ControlModel],
        *,
        decoupled: bool = False,
    ) -> Call:
        number = next(self._numbers)
        call = self._open[number] = Call(self, number, batch)
        if decoupled:
            call.untaken = Untaken(this_user(batch), lambda: self._tell(CallTaken(number)))
            self._streams.open(number, call.untaken)
        try:
            self._inbox.send(make(number))
        except ChannelClosed:
            self._end_all()
        return call

    # ── for calls ───────────────────────────────────────────────────────────────────────────────────────────────────

    def wait(self, call: Call, user: User) -> None:
        """Until it has a response."""
        self._streams.begin_wait(call.number, user)
        try:
            self._inbox.wait(lambda: bool(call.answers))
        except ChannelClosed:
            self._end_all()
        finally:
            self._streams.end_wait(call.number)

    def begin_await(self, call: Call, user: User) -> None:
        """Have a thread read until it, and all others that tasks wait for, have a response."""
        self._streams.begin_wait(call.number, user)
        with self._guard:
            self._awaited.add(call)
            if not self._reads:
                self._reads = True
                Thread(target=self._read, name="penstock-answers", daemon=True).start()

    def end_await(self, call: Call) -> None:
        """No task waits for it any more."""
        self._awaited.discard(call)
        self._streams.end_wait(call.number)

    def cancel(self, call: Call) -> None:
        """No response is needed any more. Finalizers call this too."""
        if call.number in self._open:
            with suppress(ChannelClosed):
                self._inbox.post(CancelCall(call.number))

    def _tell(self, message: CallTaken) -> None:
        try:
            self._inbox.send(message)
        except ChannelClosed:
            self._end_all()

    def _read(self) -> None:
        try:
            self._inbox.wait(self._none_awaited)
        except ChannelClosed:
            self._end_all()

    def _none_awaited(self) -> bool:
        with self._guard:
            self._reads = bool(self._awaited)
            return not self._reads

    def _hand_out(self, answered: CallAnswered) -> None:
        call = self._open.get(answered.call)
        if call is None:
            return
        if answered.final:
            del self._open[answered.call]
            self._streams.ended(answered.call)
        self._awaited.discard(call)
        call.hand_over(answered)
        if not answered.final:
            self._streams.came(answered.call)

    def _end_all(self) -> None:
        """Nobody answers any more."""
        for number in list(self._open):
            # another thread may have seen it too
            if (call := self._open.pop(number, None)) is not None:
                self._awaited.discard(call)
                self._streams.ended(number)
                call.hand_over(None)


class Call:
    """As `backends.base.OpenCall` says."""

    untaken: Untaken | None = None
    """Of a call that may have many responses."""

    def __init__(self, others: OtherModels, number: int, batch: int) -> None:
        self._others = others
        self._batch = batch
        self.number = number
        self.answers: deque[CallAnswered | None] = deque()
        self._wake: Callable[[], object] | None = None

    def next(self) -> ModelAnswer:
        """Wait for the next response."""
        user = this_user(self._batch)
        if not self.answers:
            self._others.wait(self, user)
        return self._take(user)

    async def next_async(self) -> ModelAnswer:
        """As `next`, in an event loop."""
        loop = asyncio.get_running_loop()
        there = asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(there.set)
        user = this_user(self._batch, in_task=True)
        self._others.begin_await(self, user)
        try:
            if not self.answers:
                await there.wait()
        finally:
            self._wake = None
            self._others.end_await(self)
        return self._take(user)

    def cancel(self) -> None:
        """No response is needed any more."""
        self._others.cancel(self)

    def hand_over(self, answered: CallAnswered | None) -> None:
        """A response is there; None: there will be none, for the server is gone. Called by any thread."""
        self.answers.append(answered)
        wake = self._wake
        if wake is not None:
            wake()

    def _take(self, user: User) -> ModelAnswer:
        answered = self.answers.popleft()
        if answered is None:
            return ModelAnswer({}, {}, Unavailable(GONE), final=True)
        if self.untaken is not None:
            self.untaken.user = user
            if not answered.final:
                self.untaken.taken()
        error = None
        if answered.error is not None:
            kind = REQUEST_ERRORS.get(answered.error.kind, ModelFailed)
            error = kind(answered.error.reason)
        # copies: what a message holds can't be written to, and models may do that with what is theirs
        outputs = {t.name: as_array(t.datatype, t.shape, t.data).copy() for t in answered.outputs}
        return ModelAnswer(outputs, answered.parameters, error, answered.final)


_Asked: Final = tuple[str, str, str, tuple[str, ...], dict[str, Parameter]]
_Controlled: Final = tuple[str, str, str, dict[str, bytes]]


def _check(told: object, kind: object) -> None:
    """Raises InvalidRequest: the gateway could not read the message, and so never answer it."""
    try:
        msgspec.convert(told, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"other models can't be asked this: {error}") from error


def _tensor(name: str, array: Array) -> ResponseTensor:
    """Raises InvalidRequest."""
    if array.dtype.kind in "OSU":
        data = memoryview(serialize_bytes(to_byte_array(array)))
        return ResponseTensor(name, "BYTES", array.shape, data)
    datatype = DATATYPES.get(array.dtype)
    if datatype is None:
        raise InvalidRequest(
            f"input '{name}' has dtype {array.dtype}, which no datatype of the protocol stands for"
        )
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return ResponseTensor(name, datatype, array.shape, flat.data)
