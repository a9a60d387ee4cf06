"""Starts, watches and ends worker processes for the gateway, and keeps them for the next one when it crashes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from penstock.backends import device_lost
from penstock.supervisor.child import Child, describe_exit
from penstock.supervisor.oom import count_oom_kills
from penstock.workers.channel import Channel
from penstock.workers.supervisor_messages import (
    StartWorker,
    StopWorker,
    SupervisorMessage,
    WorkerExited,
    WorkerKept,
    WorkerLoaded,
    WorkerStarted,
)

NOT_STARTED: Final = 127
"""The status of a worker whose process could not be started."""

Send = Callable[[SupervisorMessage, int | None], None]


@dataclass(slots=True)
class _Worker:
    """A worker that runs."""

    name: str
    child: Child
    channel: Channel
    """The gateway's end, held here too: a gateway that crashes must not be the end of the channel."""
    key: bytes | None = None
    """What it has loaded; None: nothing yet."""
    stopping: asyncio.Task[int] | None = None


class WorkerProcesses:
    """All workers of a server. Tells its gateway of each what became of it."""

    def __init__(self, hidden: Collection[str] = ()) -> None:
        """`hidden`: variables that are not for models, for they hold secrets."""
        self._hidden = hidden
        self._send: Send = _drop
        self._running: dict[int, _Worker] = {}
        self._next_id = 1

    @property
    def next_id(self) -> int:
        """No worker has had it or one above it."""
        return self._next_id

    def hand_over(self, send: Send) -> int:
        """Give all loaded workers to a new gateway, which `send` tells of them from now on. Returns how many."""
        self._send = send
        count = 0
        for worker_id, worker in self._running.items():
            if worker.key is not None and worker.stopping is None and worker.child.running:
                message = WorkerKept(worker_id, worker.child.pid, worker.name, worker.key)
                send(message, os.dup(worker.channel.fileno()))
                count += 1
        return count

    def orphan(self) -> None:
        """The gateway is gone: those that have nothing loaded end, the others go on."""
        self._send = _drop
        for worker in self._running.values():
            if worker.key is None:
                worker.child.kill()

    def start(self, command: StartWorker) -> None:
        """Start a process; answers WorkerStarted with its socket's other end, or WorkerExited."""
        worker_id = command.worker_id
        self._next_id = max(self._next_id, worker_id + 1)
        ours, theirs = Channel.pair()
        try:
            child = Child.start(
                _argv(command, theirs.fileno()),
                {**self._inherited(), **command.environment},
                pass_fds=(theirs.fileno(),),
            )
        except OSError as error:
            ours.close()
            reason = f"could not be started: {error.strerror}"
            self._send(WorkerExited(worker_id, NOT_STARTED, reason), None)
            return
        finally:
            theirs.close()
        self._running[worker_id] = _Worker(command.name, child, ours)
        oom_kills = count_oom_kills()
        child.exited.add_done_callback(
            lambda exited: self._on_exit(worker_id, exited.result(), oom_kills)
        )
        self._send(WorkerStarted(worker_id, child.pid), os.dup(ours.fileno()))

    def _inherited(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name not in self._hidden}

    def loaded(self, message: WorkerLoaded) -> None:
        """The worker has its model. One that has ended is of no interest any more."""
        if worker := self._running.get(message.worker_id):
            worker.key = message.key

    def stop(self, command: StopWorker) -> None:
        """End a worker with its grace. One that has ended already was told of before."""
        worker = self._running.get(command.worker_id)
        if worker is not None and worker.stopping is None:
            worker.stopping = asyncio.ensure_future(worker.child.stop(command.grace_s))

    async def stop_all(self, grace_s: float) -> None:
        """End all workers and wait for that."""
        workers = list(self._running.values())
        await asyncio.gather(*[worker.child.stop(grace_s) for worker in workers])

    def kill_all(self) -> None:
        """SIGKILL, at once; `stop_all` waits for it."""
        for worker in self._running.values():
            worker.child.kill()

    def _on_exit(self, worker_id: int, status: int, oom_kills: int) -> None:
        self._running.pop(worker_id).channel.close()
        reason = describe_exit(status, out_of_memory=count_oom_kills() > oom_kills)
        if status == device_lost.EXIT_CODE:
            reason = "an error of CUDA that only a new process gets over; its log says which"
        self._send(WorkerExited(worker_id, status, reason), None)


def _drop(message: SupervisorMessage, descriptor: int | None) -> None:
    """There is no gateway. What it would be told, the next one need not know."""
    if descriptor is not None:
        os.close(descriptor)


def _argv(command: StartWorker, descriptor: int) -> list[str]:
    module = "penstock.workers.main"
    # -P: a numpy.py in the current folder must not be taken for NumPy
    return [
        *(sys.executable, "-P", "-m", module),
        *("--fd", str(descriptor)),
        *("--parent", str(os.getpid())),
        *("--name", command.name),
    ]
