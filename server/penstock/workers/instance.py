"""One worker as the gateway sees it: its slabs, and the batches it has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.errors import LoadFailed, PenstockError
from penstock.logs import LogSettings
from penstock.types import MetricChange, OutputTensor
from penstock.workers import messages
from penstock.workers.channel import ChannelClosed
from penstock.workers.control import ControlLink, WorkerProcess
from penstock.workers.gather import gather
from penstock.workers.request import PendingRequest
from penstock.workers.slab import Slab
from penstock.workers.slab_set import SLABS, Lease, Loans, SlabSet, worth_lending

log = logging.getLogger(__name__)

LOAD = 0
"""The number of the Ready that answers Load."""


@dataclass(frozen=True, slots=True)
class RunningBatch:
    """A batch that a worker has."""

    requests: Sequence[PendingRequest]
    slab_id: int
    started_ns: int
    """When it left the queue."""


class Listener(Protocol):
    """Who gives an instance its batches, and hears of them."""

    def on_done(self, instance: Instance, batch: RunningBatch, done: messages.Done) -> None:
        """The batch is answered; `release` it when its views are no longer needed."""

    def on_failed(
        self, instance: Instance, batch: RunningBatch, failed: messages.BatchFailed
    ) -> None:
        """The model failed on the batch as a whole."""

    def on_exit(self, instance: Instance, reason: str) -> None:
        """The process ended; `instance.running` is what it had."""


class Instance:
    """A loaded worker. Its `listener` is set before it gets the first batch: a model's pool is made only when its
    first worker has completed the configuration."""

    listener: Listener | None = None

    def __init__(self, link: ControlLink, process: WorkerProcess) -> None:
        self._link = link
        self.process = process
        self._channel = process.channel
        self._loop = asyncio.get_running_loop()
        self._slabs = SlabSet(self._attach, self._detach)
        self._next_batch = 0
        self.running: dict[int, RunningBatch] = {}
        self._logging: LogSettings | None = None
        """What the worker was told to log."""
        self._unheard: list[MetricChange] = []
        self._hear_metrics: Callable[[Sequence[MetricChange]], None] = self._unheard.extend
        self._expected = LOAD
        """The number of the Ready that counts."""
        self._loaded: asyncio.Future[messages.Ready] = self._loop.create_future()
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
        return bool(self._slabs) and len(self.running) < SLABS

    async def load(self, command: messages.Load, timeout_s: float) -> messages.Ready:
        """Load the model. Raises LoadFailed when the worker refuses, dies, or takes too long, Unavailable when there is
        no memory for slabs."""
        self.tell_logging()
        self._send(command)
        return await self._until_ready(timeout_s, "loading took")

    async def take_over(self, timeout_s: float) -> messages.Ready:
        """Make this gateway's own a worker that an earlier one loaded, and that may still run batches for it: what it
        says until it answers is dropped. Raises as `load` does."""
        self._expected = time.monotonic_ns()
        self._send(messages.Reset(self._expected))
        return await self._until_ready(timeout_s, "its last batch takes")

    async def _until_ready(self, timeout_s: float, what: str) -> messages.Ready:
        try:
            ready = await asyncio.wait_for(asyncio.shield(self._loaded), timeout_s)
        except TimeoutError:
            raise LoadFailed(f"{what} longer than {timeout_s:g} s") from None
        self.tell_logging()
        self._slabs.fill()
        return ready

    def tell_logging(self) -> None:
        """Have the worker log what the link says, if it does not yet."""
        if self._link.logging is not None and self._link.logging != self._logging:
            self._logging = self._link.logging
            self._send(messages.SetLogging(self._logging))

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
        self._send(command)
        self._slabs.take()
        self.running[command.batch] = RunningBatch(requests, slab_id, now_ns)

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

    def close(self, grace_s: float = 0) -> None:
        """End the worker and unmap its slabs."""
        self._link.stop_worker(self.process, grace_s)
        self._forget()

    def _attach(self, number: int, slab: Slab) -> None:
        self._send(messages.AttachSlab(number), (slab.fd,))

    def _detach(self, number: int) -> None:
        self._send(messages.DetachSlab(number))

    def _send(self, message: messages.WorkerCommand, descriptors: Sequence[int] = ()) -> None:
        try:
            self._channel.send(message, descriptors)
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
        match messages.decode_worker_event(data):
            case messages.Ready(number=number) as ready if number == self._expected:
                if not self._loaded.done():
                    self._loaded.set_result(ready)
            case messages.LoadRefused(reason=reason):
                if not self._loaded.done():
                    self._loaded.set_exception(LoadFailed(reason))
            case _ if not self._loaded.done():
                log.debug("worker %d answered the gateway before this one", self.process.pid)
            case messages.ModelMetrics(changes=changes):
                self._hear_metrics(changes)
            case messages.Done(batch=number) | messages.BatchFailed(batch=number) if (
                number not in self.running
            ):
                log.error("worker %d answered twice: did its model fork?", self.process.pid)
            case messages.Done() as done:
                batch = self.running.pop(done.batch)
                if done.slab_bytes > self._slabs[batch.slab_id].size_bytes:
                    self._slabs[batch.slab_id].refresh()
                if self.listener is not None:
                    self.listener.on_done(self, batch, done)
            case messages.BatchFailed() as failed:
                batch = self.running.pop(failed.batch)
                if self.listener is not None:
                    self.listener.on_failed(self, batch, failed)

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
        before = len(self.running), self._loaded.done()
        self._read()
        return (len(self.running), self._loaded.done()) != before

    def _forget(self) -> None:
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
        self._slabs.close()
