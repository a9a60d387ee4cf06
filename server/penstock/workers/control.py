"""The gateway's end of the control socket: worker processes are asked of the supervisor, who owns them.

Those that an earlier gateway left come first, and wait here until they are claimed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping

from penstock.errors import LoadFailed
from penstock.logs import LogSettings
from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.message import encode
from penstock.workers.supervisor_messages import (
    Drain,
    GatewayFailed,
    GatewayMessage,
    Inheritance,
    Ping,
    Pong,
    Report,
    Shutdown,
    StartWorker,
    StopWorker,
    TlsState,
    WorkerExited,
    WorkerKept,
    WorkerLoaded,
    WorkerStarted,
    decode_supervisor_message,
)

log = logging.getLogger(__name__)

SUPERVISOR_GONE = "the supervisor is gone"

UNCLAIMED_GRACE_S = 5.0
"""What a worker that nobody needs gets to give back what its model holds."""


class WorkerProcess:
    """A running worker: its channel, and what happens when it ends."""

    def __init__(self, worker_id: int, pid: int, channel: Channel) -> None:
        self.worker_id = worker_id
        self.pid = pid
        self.channel = channel
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """How it ended, in words."""


class ControlLink:
    """Starts, takes over and stops workers, reports what is served, and hears when to drain. One a gateway."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._channel.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._next_id = 0
        self._inheritance: asyncio.Future[Inheritance] = self._loop.create_future()
        self._unclaimed: dict[int, WorkerKept] = {}
        self._starting: dict[int, asyncio.Future[WorkerProcess]] = {}
        self._running: dict[int, WorkerProcess] = {}
        self._unsent: deque[bytes] = deque()
        """What the socket's buffer had no room for: many models can change at once."""
        self.logging: LogSettings | None = None
        """What workers are to log; None: what they do by themselves."""
        self.tls: TlsState | None = None
        """What the supervisor said last of certificates; None: there are none."""
        self.on_tls: Callable[[TlsState, TlsState], None] = lambda _, __: None
        """Hears of changes: what was, and what is."""
        self.on_drain: Callable[[], None] = _nothing
        self.on_shutdown: Callable[[], None] = _nothing
        """Called for Shutdown, and when the supervisor is gone."""
        self._loop.add_reader(channel.fileno(), self._read)

    async def start_worker(self, name: str, environment: Mapping[str, str]) -> WorkerProcess:
        """A new worker process. Raises LoadFailed when it can't be started."""
        await self.inherited()
        if self._closed:
            raise LoadFailed(SUPERVISOR_GONE)
        worker_id, self._next_id = self._next_id, self._next_id + 1
        started: asyncio.Future[WorkerProcess] = self._loop.create_future()
        self._starting[worker_id] = started
        self._send(StartWorker(worker_id, name, dict(environment)))
        try:
            return await started
        except asyncio.CancelledError:
            # it came, but too late for who asked for it
            if started.done() and not started.cancelled() and started.exception() is None:
                self._end_unwanted(started.result())
            raise

    async def inherited(self) -> dict[str, bool] | None:
        """Wait until all workers that an earlier gateway left are here to be claimed.

        Returns the models that it was to serve, None where there was no such gateway. Raises LoadFailed when the
        supervisor is gone.
        """
        return (await asyncio.shield(self._inheritance)).wanted

    def loaded(self, worker: WorkerProcess, key: bytes) -> None:
        """Tell that the worker has loaded what `key` says, for which a later gateway may claim it."""
        self._send(WorkerLoaded(worker.worker_id, key))

    def has_unclaimed(self, prefix: str) -> bool:
        """Whether a worker waits whose name begins like that."""
        return any(kept.name.startswith(prefix) for kept in self._unclaimed.values())

    def claim(self, name: str, key: bytes) -> WorkerProcess | None:
        """The running worker of that name that an earlier gateway left, if it has loaded what `key` says.

        Others of that name are of no use any more, and are ended.
        """
        named = [kept for kept in self._unclaimed.values() if kept.name == name]
        # the newest: there are two where a load anew had begun
        claimed = max((kept.worker_id for kept in named if kept.key == key), default=None)
        for kept in named:
            if kept.worker_id != claimed:
                self._end_unclaimed(kept.worker_id)
        if claimed is None:
            return None
        del self._unclaimed[claimed]
        return self._running[claimed]

    def end_unclaimed(self) -> None:
        """End all workers that nobody has claimed."""
        for worker_id in list(self._unclaimed):
            self._end_unclaimed(worker_id)

    def stop_worker(self, worker: WorkerProcess, grace_s: float) -> None:
        """Have it ended; `worker.exited` tells when."""
        if worker.worker_id in self._running:
            self._send(StopWorker(worker.worker_id, grace_s))

    def report(self, report: Report) -> None:
        """Tell what is served."""
        self._send(report)

    def fail(self, reason: str) -> None:
        """Tell that this gateway can't go on."""
        self._send(GatewayFailed(reason))

    def close(self) -> None:
        """Stop listening."""
        if not self._closed:
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
            self._channel.close()
            self._unsent.clear()
            for worker_id in self._unclaimed:
                self._running[worker_id].channel.close()
            self._unclaimed.clear()

    @property
    def _closed(self) -> bool:
        return self._channel.fileno() < 0

    def _send(self, message: GatewayMessage) -> None:
        if self._closed:
            return
        # encoded at once: one that can't be is its sender's error, and not in the way of those after it
        self._unsent.append(encode(message))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._channel.send_encoded(self._unsent[0])
                self._unsent.popleft()
            self._loop.remove_writer(self._channel.fileno())
        except BlockingIOError:
            self._loop.add_writer(self._channel.fileno(), self._flush)
        except ChannelClosed:
            self._lost()

    def _read(self) -> None:
        try:
            data, descriptors = self._channel.receive()
        except BlockingIOError:
            return
        except ChannelClosed:
            self._lost()
            return
        match decode_supervisor_message(data):
            case WorkerStarted(worker_id=worker_id, pid=pid):
                self._started(worker_id, pid, descriptors[0])
            case WorkerKept() as kept:
                self._keep(kept, descriptors[0])
            case Inheritance() as inheritance:
                self._next_id = inheritance.next_worker_id
                self._inheritance.set_result(inheritance)
            case WorkerExited(worker_id=worker_id, reason=reason):
                self._exited(worker_id, reason)
            case Ping(number=number):
                self._send(Pong(number))
            case TlsState() as state:
                before, self.tls = self.tls, state
                if before is not None:
                    self.on_tls(before, state)
            case Drain():
                self.on_drain()
            case Shutdown():
                self.on_shutdown()

    def _started(self, worker_id: int, pid: int, descriptor: int) -> None:
        channel = Channel(socket.socket(fileno=descriptor))
        future = self._starting.pop(worker_id)
        worker = WorkerProcess(worker_id, pid, channel)
        self._running[worker_id] = worker
        if future.cancelled():
            self._end_unwanted(worker)
        else:
            future.set_result(worker)

    def _end_unwanted(self, worker: WorkerProcess) -> None:
        worker.channel.close()
        self.stop_worker(worker, 0)

    def _keep(self, kept: WorkerKept, descriptor: int) -> None:
        channel = Channel(socket.socket(fileno=descriptor))
        self._running[kept.worker_id] = WorkerProcess(kept.worker_id, kept.pid, channel)
        self._unclaimed[kept.worker_id] = kept

    def _end_unclaimed(self, worker_id: int) -> None:
        del self._unclaimed[worker_id]
        worker = self._running[worker_id]
        worker.channel.close()
        self.stop_worker(worker, UNCLAIMED_GRACE_S)

    def _exited(self, worker_id: int, reason: str) -> None:
        if self._unclaimed.pop(worker_id, None):
            self._running[worker_id].channel.close()
        if starting := self._starting.pop(worker_id, None):
            if not starting.done():
                starting.set_exception(LoadFailed(f"no worker process could be started: {reason}"))
        elif (worker := self._running.pop(worker_id, None)) and not worker.exited.done():
            worker.exited.set_result(reason)

    def _lost(self) -> None:
        self.close()
        if not self._inheritance.done():
            self._inheritance.set_exception(LoadFailed(SUPERVISOR_GONE))
            # nobody may be waiting
            self._inheritance.exception()
        for starting in self._starting.values():
            if not starting.done():
                starting.set_exception(LoadFailed(SUPERVISOR_GONE))
        for worker in self._running.values():
            if not worker.exited.done():
                worker.exited.set_result(SUPERVISOR_GONE)
        self._starting.clear()
        self._running.clear()
        self.on_shutdown()


def _nothing() -> None:
    """Nobody listens yet."""
