"""A child process that the event loop watches, and that dies with this process however it dies."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


class Child:
    """A running process, leader of its own session; what is left of its process group ends with it.

    Start it from the main thread: the kernel ends it when the *thread* that forked it ends.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """Exit code; negative: the signal's number."""
        self._loop.add_reader(self._pidfd, self._reap)

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a process. Raises OSError when it can't be."""
        process = subprocess.Popen(
            argv,
            env=dict(environment),
            cwd=cwd,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            # Ctrl-C at the terminal is the supervisor's alone
            start_new_session=True,
            preexec_fn=ends_with_us(signal.SIGKILL),
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        """Asked of the kernel: the event loop may not have come to its end yet."""
        return not self.exited.done() and not _has_ended(self._pidfd)

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    async def stop(self, grace_s: float) -> int:
        """SIGTERM, then SIGKILL when it has not ended after `grace_s`. Returns its status."""
        self.terminate()
        await self.wait(grace_s)
        self.kill()
        return await self.exited

    async def wait(self, timeout_s: float) -> bool:
        """Whether it ended in that time."""
        await asyncio.wait([self.exited], timeout=max(timeout_s, 0))
        return not self.running

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # before the wait: until then the number can't be another group's
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.exited.set_result(self._process.wait())


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def describe_exit(status: int, *, out_of_memory: bool = False) -> str:
    """A status in words: `exit code 3`, `killed by SIGSEGV`, `killed: out of memory` …"""
    if status >= 0:
        return f"exit code {status}"
    if out_of_memory and status == -signal.SIGKILL:
        return "killed: out of memory"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def ends_with_us(number: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends the child that signal when this thread ends, however it does."""
    return functools.partial(_die_with, os.getpid(), _libc(), number)


def _die_with(parent: int, libc: ctypes.CDLL, number: signal.Signals) -> None:
    """Runs in the child, between fork and exec."""
    libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        # it died before the call above could see it
        os._exit(1)
