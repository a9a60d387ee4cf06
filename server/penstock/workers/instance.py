"""One worker as the gateway sees it: its slabs, and the batches it has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from penstock.errors import LoadFailed, PenstockError
from penstock.logs import LogSettings
from penstock.types import MetricChange, OutputTensor
from penstock.workers.channel import ChannelClosed
from penstock.workers.control import ControlLink, WorkerProcess
from penstock.workers.gather import gather
from penstock.workers.message import Message
from penstock.workers.message_parts import RequestError
from penstock.workers.open_request import OpenRequest, RunningBatch, StreamingBatch
from penstock.workers.outbox import Outbox
from penstock.workers.request import PendingRequest
from penstock.workers.slab import Slab
from penstock.workers.slab_set import SLABS, Lease, Loans, SlabSet, worth_lending
from penstock.workers.worker_commands import (
    AttachSlab,
    CallAnswered,
    Cancel,
    DetachSlab,
    Load,
    Reset,
    SetLogging,
)
from penstock.workers.worker_events import (
    BatchFailed,
    CallModel,
    CallTaken,
    CancelCall,
    ControlModel,
    Done,
    Executed,
    LoadRefused,
    ModelMetrics,
    Ready,
    Response,
    WorkerEvent,
    decode_worker_event,
)

log = logging.getLogger(__name__)

MAX_STREAMING: Final = 1024
"""Batches of a decoupled model that are executed, and still have responses to send, on one instance."""

LOAD: Final = 0
"""The number of the Ready that answers Load."""

Asked = CallModel | ControlModel | CallTaken | CancelCall

NOT_YET: Final = "a model can't ask others for anything before it is loaded"


class Listener(Protocol):
    """Who gives an instance its batches, and hears of them."""

    def on_done(self, instance: Instance, batch: RunningBatch, done: Done) -> None:
        """The batch is answered; `release` it when its views are no longer needed."""

    def on_failed(self, instance: Instance, batch: RunningBatch, failed: BatchFailed) -> None:
        """The model failed on the batch as a whole."""

    def on_call(self, instance: Instance, call: Asked) -> None:
        """The model asks something of another one, or has something to say of what it asked."""
        ...

    def on_exit(self, instance: Instance, reason: str) -> None:
        """The process ended; `instance.running` is what it had."""


class StreamListener(Protocol):
    """Who hears of the batches of a decoupled model's instance beside its Listener."""

    def on_response(
        self,
        instance: Instance,
        batch: StreamingBatch,
        opened: OpenRequest,
        response: Response,
    ) -> None:
        """One of its requests has a response."""
        ...

    def on_executed(self, instance: Instance, batch: StreamingBatch) -> None:
        """The batch is executed; `release` it. Its responses may still come."""
        ...


class Instance:
    """A loaded worker. Its `listener` is set before it gets the first batch: a model's pool is made only when its
    first worker has completed the configuration."""

    listener: Listener | None = None
    stream_listener: StreamListener | None = None
    """Set where the model is decoupled."""

    def __init__(self, link: ControlLink, process: WorkerProcess, digest: bytes = b"") -> None:
        """`digest`: of what the worker loads, or has loaded."""
        self.digest = digest
        self._link = link
        self.process = process
        self._channel = process.channel
        self._loop = asyncio.get_running_loop()
        self._slabs = SlabSet(self._attach, self._detach)
        self._next_batch = 0
        self._heard = 0
        """Messages that came."""
        self._outbox = Outbox(self._channel)
        self.running: dict[int, RunningBatch] = {}
        self.streaming: dict[int, StreamingBatch] = {}
        """Those of a decoupled model that are executed, and have requests without their final responses."""
        self._opened: dict[PendingRequest, OpenRequest] = {}
        """These, and those that run."""
        self.device = "cpu"
        """Or `cuda:N`."""
        self.fallbacks: dict[str, str] = {}
        """Why it does not run as it was asked for: `device` (it has no GPU) or `backend` → the reason."""
        self.heard_ns = 0
        """When a response came last."""
        self._logging: LogSettings | None = None
        """What the worker was told to log."""
        self._unheard: list[MetricChange] = []
        self._hear_metrics: Callable[[Sequence[MetricChange]], None] = self._unheard.extend
        self._expected = LOAD
        """The number of the Ready that counts."""
        self._loaded: asyncio.Future[Ready] = self._loop.create_future()
        self._channel.setblocking(False)
        self._loop.add_reader(self._channel.fileno(), self._read)
        process.exited.add_done_callback(lambda exited: self._ended(exited.result()))

    @property
    def idle(self) -> bool:
        """Nothing to do."""
        return not self.running

    @property
    def can_take(self) -> bool:
        """A slab is free for one more batch, of which it has as many at a time as there were slabs first."""
        return (
            bool(self._slabs) and len(self.running) < SLABS and len(self.streaming) < MAX_STREAMING
        )

    @property
    def batches(self) -> Sequence[RunningBatch]:
        """All that it has, in the order in which it got them, those first that are executed."""
        return [*self.streaming.values(), *self.running.values()]

    async def load(self, command: Load, timeout_s: float) -> Ready:
        """Load the model. Raises LoadFailed when the worker refuses, dies, or takes too long, Unavailable when there is
        no memory for slabs."""
        self.tell_logging()
        self._tell(command)
        return await self._until_ready(timeout_s, "loading took")

    async def take_over(self, timeout_s: float) -> Ready:
        """Make this gateway's own a worker that an earlier one loaded, and that may still run batches for it: what it
        says until it answers is dropped. Raises as `load` does."""
        self._expected = time.monotonic_ns()
        self._tell(Reset(self._expected))
        return await self._until_ready(timeout_s, "its last batch takes")

    async def _until_ready(self, timeout_s: float, what: str) -> Ready:
        try:
            # not `wait_for`, which before Python 3.12 drops a cancellation that comes together with the answer
            async with asyncio.timeout(timeout_s):
                ready = await asyncio.shield(self._loaded)
        except TimeoutError:
            raise LoadFailed(f"{what} longer than {timeout_s:g} s") from None
        if self.process.exited.done():
            # it said so, and ended before this was read: `_ended` may have been here, and nobody would close slabs any
            # more. Whoever it is added to hears of the end
            return ready
        self.tell_logging()
        self._slabs.fill()
        return ready

    def placed(self, device: str, no_gpu: str, of_backend: str) -> None:
        """Where it runs, and why not otherwise; empty: there is nothing to tell."""
        self.device = device
        told = {"device": no_gpu, "backend": of_backend}
        self.fallbacks = {kind: reason for kind, reason in told.items() if reason}

    def tell_logging(self) -> None:
        """Have the worker log what the link says, if it does not yet."""
        if self._link.logging is not None and self._link.logging != self._logging:
            self._logging = self._link.logging
            self._tell(SetLogging(self._logging))

    def hear_metrics(self, hear: Callable[[Sequence[MetricChange]], None]) -> None:
        """`hear` gets what the worker tells of its model's own metrics, from its load on."""
        self._hear_metrics = hear
        hear(self._unheard)
        self._unheard.clear()

    def execute(self, requests: Sequence[PendingRequest], now_ns: int) -> None:
        """Gather the batch into a free slab and send it. Raises Unavailable without memory for it."""
        slab_id = self._slabs.next
        self._next_batch += 1
        command = gather(self._next_batch, slab_id, self._slabs[slab_id], requests)
        # first, for what fails here must not cost a slab
        self._tell(command)
        self._slabs.take()
        if self.stream_listener is None:
            self.running[command.batch] = RunningBatch(requests, slab_id, now_ns)
        else:
            opened = [
                OpenRequest(request, command.batch, index, self._tell)
                for index, request in enumerate(requests)
            ]
            self.running[command.batch] = StreamingBatch(requests, slab_id, now_ns, opened=opened)
            self._opened.update(zip(requests, opened, strict=True))

    def cancel(self, request: PendingRequest) -> bool:
        """Tell the worker that nobody waits for the request; whether it has it."""
        opened = self._opened.pop(request, None)
        if opened is not None:
            opened.cancel()
            return True
        for number, batch in self.running.items():
            if request in batch.requests:
                self._tell(Cancel(number, batch.requests.index(request)))
                return True
        return False

    def slab_of(self, batch: RunningBatch) -> Slab:
        """Where the batch's tensors lie until `release`."""
        return self._slabs[batch.slab_id]

    def release(self, batch: RunningBatch) -> None:
        """All responses are encoded: the slab may hold the next batch, as soon as nobody is lent it."""
        self._slabs.put_back(batch.slab_id)

    def lend(
        self, batch: RunningBatch, outputs: Sequence[OutputTensor] | PenstockError, loans: Loans
    ) -> Lease | None:
        """Keep the outputs of a request of the batch where they are; None: they are to be copied."""
        return self._slabs.lend(batch.slab_id, loans) if worth_lending(outputs) else None

    def answer(self, message: CallAnswered) -> None:
        """Answer what the model asked. What the message holds may be views that are valid now only."""
        self._tell(message)

    def close(self, grace_s: float = 0) -> None:
        """End the worker and unmap its slabs."""
        self._link.stop_worker(self.process, grace_s)
        self._forget()

    def _attach(self, number: int, slab: Slab) -> None:
        self._tell(AttachSlab(number), (slab.fd,))

    def _detach(self, number: int) -> None:
        self._tell(DetachSlab(number))

    def _tell(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Now, or when the worker is not too busy to listen."""
        if self._channel.fileno() < 0:
            return
        try:
            self._outbox.send(message, descriptors)
        except ChannelClosed:
            # the supervisor says how it ended, and `_ended` deals with what it had
            log.debug("worker %d is gone", self.process.pid)

    def _read(self) -> None:
        try:
            data, _ = self._channel.receive()
        except BlockingIOError:
            return
        except ChannelClosed:
            self._loop.remove_reader(self._channel.fileno())
            return
        self._heard += 1
        event = decode_worker_event(data)
        # first, for it is what comes for every batch
        if isinstance(event, Done) and event.batch in self.running:
            self._on_done(event)
        elif self._loaded.done():
            self._hear(event)
        else:
            self._hear_while_loading(event)

    def _hear_while_loading(self, event: WorkerEvent) -> None:
        match event:
            case Ready(number=number) as ready if number == self._expected:
                self._loaded.set_result(ready)
            case LoadRefused(reason=reason):
                self._loaded.set_exception(LoadFailed(reason))
            case CallModel() | ControlModel() as asked:
                self._refuse(asked)
            case _:
                log.debug("worker %d answered the gateway before this one", self.process.pid)

    def _hear(self, event: WorkerEvent) -> None:
        match event:
            case ModelMetrics(changes=changes):
                self._hear_metrics(changes)
            case CallModel() | ControlModel() as asked if self.listener is None:
                self._refuse(asked)
            case CallModel() | ControlModel() | CallTaken() | CancelCall() as asked:
                if self.listener is not None:
                    self.listener.on_call(self, asked)
            case Response() as response:
                self._on_response(response)
            case Done(batch=number) | BatchFailed(batch=number) | Executed(batch=number) if (
                number not in self.running
            ):
                log.error("worker %d answered twice: did its model fork?", self.process.pid)
            case BatchFailed() as failed:
                batch = self.running.pop(failed.batch)
                if isinstance(batch, StreamingBatch):
                    self._end(batch.opened)
                if self.listener is not None:
                    self.listener.on_failed(self, batch, failed)
            case Executed() as executed:
                self._on_executed(executed)

    def _refuse(self, asked: CallModel | ControlModel) -> None:
        refusal = RequestError(0, NOT_YET, "Unavailable")
        self.answer(CallAnswered(asked.call, (), {}, refusal, final=True))

    def _on_done(self, done: Done) -> None:
        batch = self.running.pop(done.batch)
        if done.slab_bytes > self._slabs[batch.slab_id].size_bytes:
            self._slabs[batch.slab_id].refresh()
        if self.listener is not None:
            self.listener.on_done(self, batch, done)

    def _on_response(self, response: Response) -> None:
        number = response.batch
        batch = self.streaming.get(number) or self.running.get(number)
        if not isinstance(batch, StreamingBatch) or batch.opened[response.request].ended:
            log.error("worker %d answered twice: did its model fork?", self.process.pid)
            return
        opened = batch.opened[response.request]
        self.heard_ns = time.monotonic_ns()
        if response.final:
            self._end((opened,))
            if response.error is not None:
                opened.wake()
            if batch.ended:
                self.streaming.pop(number, None)
        if self.stream_listener is not None:
            self.stream_listener.on_response(self, batch, opened, response)

    def _end(self, opened: Sequence[OpenRequest]) -> None:
        """Nothing more will come of these requests."""
        for each in opened:
            each.ended = True
            self._opened.pop(each.request, None)

    def _on_executed(self, executed: Executed) -> None:
        batch = self.running.pop(executed.batch)
        assert isinstance(batch, StreamingBatch), "only decoupled models say so"
        batch.executed = executed
        if not batch.ended:
            self.streaming[executed.batch] = batch
        if self.stream_listener is not None:
            self.stream_listener.on_executed(self, batch)

    def _ended(self, reason: str) -> None:
        while self._channel.fileno() >= 0 and self._drain():
            pass
        if not self._loaded.done():
            self._loaded.set_exception(LoadFailed(f"the worker process ended: {reason}"))
            # nobody may be waiting any more
            self._loaded.exception()
        self._forget()
        if self.listener is not None:
            self.listener.on_exit(self, reason)

    def _drain(self) -> bool:
        """Take what the worker still said before it ended."""
        before = self._heard
        self._read()
        return self._heard != before

    def _forget(self) -> None:
        if self._channel.fileno() >= 0:
            self._outbox.close()
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
        self._slabs.close()
