"""Starts, watches and ends worker processes for the gateway."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Final

from penstock.supervisor.child import Child, describe_exit
from penstock.supervisor.oom import count_oom_kills
from penstock.workers.channel import Channel
from penstock.workers.messages import (
    StartWorker,
    StopWorker,
    SupervisorMessage,
    WorkerExited,
    WorkerStarted,
)

NOT_STARTED: Final = 127
"""The status of a worker whose process could not be started."""

Send = Callable[[SupervisorMessage, int | None], None]


class WorkerProcesses:
    """All workers of one gateway. Tells of each what became of it by `send`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._running: dict[int, Child] = {}
        self._stopping: dict[int, asyncio.Task[int]] = {}

    def start(self, command: StartWorker) -> None:
        """Start a process; answers WorkerStarted with its socket's other end, or WorkerExited."""
        ours, theirs = Channel.pair()
        try:
            child = Child.start(
                _argv(command, theirs.fileno()),
                {**os.environ, **command.environment},
                pass_fds=(theirs.fileno(),),
            )
        except OSError as error:
            ours.close()
            reason = f"could not be started: {error.strerror}"
            self._send(WorkerExited(command.worker_id, NOT_STARTED, reason), None)
            return
        finally:
            theirs.close()
        self._running[command.worker_id] = child
        oom_kills = count_oom_kills()
        child.exited.add_done_callback(
            lambda exited: self._on_exit(command.worker_id, exited.result(), oom_kills)
        )
        descriptor = os.dup(ours.fileno())
        ours.close()
        self._send(WorkerStarted(command.worker_id, child.pid), descriptor)

    def stop(self, command: StopWorker) -> None:
        """End a worker with its grace. One that has ended already was told of before."""
        child = self._running.get(command.worker_id)
        if child is not None and command.worker_id not in self._stopping:
            task = asyncio.ensure_future(child.stop(command.grace_s))
            self._stopping[command.worker_id] = task

    async def stop_all(self, grace_s: float) -> None:
        """End all workers and wait for that."""
        await asyncio.gather(*[child.stop(grace_s) for child in self._running.values()])

    def kill_all(self) -> None:
        """SIGKILL, at once; `stop_all` waits for it."""
        for child in self._running.values():
            child.kill()

    def _on_exit(self, worker_id: int, status: int, oom_kills: int) -> None:
        del self._running[worker_id]
        self._stopping.pop(worker_id, None)
        reason = describe_exit(status, out_of_memory=count_oom_kills() > oom_kills)
        self._send(WorkerExited(worker_id, status, reason), None)


def _argv(command: StartWorker, descriptor: int) -> list[str]:
    module = "penstock.workers.main"
    # -P: a numpy.py in the current folder must not be taken for NumPy
    return [
        *(sys.executable, "-P", "-m", module),
        *("--fd", str(descriptor)),
        *("--parent", str(os.getpid())),
        *("--name", command.name),
    ]
