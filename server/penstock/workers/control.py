"""The gateway's end of the control socket: worker processes are asked of the supervisor, who owns them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping

from penstock.errors import LoadFailed
from penstock.workers import messages
from penstock.workers.channel import Channel, ChannelClosed

log = logging.getLogger(__name__)

SUPERVISOR_GONE = "the supervisor is gone"


class WorkerProcess:
    """A running worker: its channel, and what happens when it ends."""

    def __init__(self, worker_id: int, pid: int, channel: Channel) -> None:
        self.worker_id = worker_id
        self.pid = pid
        self.channel = channel
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """How it ended, in words."""


class ControlLink:
    """Starts and stops workers, reports what is served, and hears when to drain. One a gateway."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._channel.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._next_id = 0
        self._starting: dict[int, asyncio.Future[WorkerProcess]] = {}
        self._running: dict[int, WorkerProcess] = {}
        self._unsent: deque[messages.GatewayMessage] = deque()
        """What the socket's buffer had no room for: many models can change at once."""
        self.on_drain: Callable[[], None] = _nothing
        self.on_shutdown: Callable[[], None] = _nothing
        """Called for Shutdown, and when the supervisor is gone."""
        self._loop.add_reader(channel.fileno(), self._read)

    async def start_worker(self, name: str, environment: Mapping[str, str]) -> WorkerProcess:
        """A new worker process. Raises LoadFailed when it can't be started."""
        if self._closed:
            raise LoadFailed(SUPERVISOR_GONE)
        self._next_id += 1
        started: asyncio.Future[WorkerProcess] = self._loop.create_future()
        self._starting[self._next_id] = started
        self._send(messages.StartWorker(self._next_id, name, dict(environment)))
        return await started

    def stop_worker(self, worker: WorkerProcess, grace_s: float) -> None:
        """Have it ended; `worker.exited` tells when."""
        if worker.worker_id in self._running:
            self._send(messages.StopWorker(worker.worker_id, grace_s))

    def report(self, report: messages.Report) -> None:
        """Tell what is served."""
        self._send(report)

    def fail(self, reason: str) -> None:
        """Tell that this gateway can't go on."""
        self._send(messages.GatewayFailed(reason))

    def close(self) -> None:
        """Stop listening."""
        if not self._closed:
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
            self._channel.close()
            self._unsent.clear()

    @property
    def _closed(self) -> bool:
        return self._channel.fileno() < 0

    def _send(self, message: messages.GatewayMessage) -> None:
        if self._closed:
            return
        self._unsent.append(message)
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._channel.send(self._unsent[0])
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
        match messages.decode_supervisor_message(data):
            case messages.WorkerStarted(worker_id=worker_id, pid=pid):
                self._started(worker_id, pid, descriptors[0])
            case messages.WorkerExited(worker_id=worker_id, reason=reason):
                self._exited(worker_id, reason)
            case messages.Drain():
                self.on_drain()
            case messages.Shutdown():
                self.on_shutdown()

    def _started(self, worker_id: int, pid: int, descriptor: int) -> None:
        channel = Channel(socket.socket(fileno=descriptor))
        future = self._starting.pop(worker_id)
        worker = WorkerProcess(worker_id, pid, channel)
        self._running[worker_id] = worker
        if future.cancelled():
            channel.close()
            self.stop_worker(worker, 0)
        else:
            future.set_result(worker)

    def _exited(self, worker_id: int, reason: str) -> None:
        if starting := self._starting.pop(worker_id, None):
            if not starting.done():
                starting.set_exception(LoadFailed(f"no worker process could be started: {reason}"))
        elif (worker := self._running.pop(worker_id, None)) and not worker.exited.done():
            worker.exited.set_result(reason)

    def _lost(self) -> None:
        self.close()
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
