"""Starts and stops the servers under test, each as a session of its own on free ports."""

from __future__ import annotations

import os
import select
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from penstock.config import Settings
from penstock.supervisor.ports import resolve_ports
from penstock_loadtest import cpu
from penstock_loadtest.errors import BenchmarkError

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
KILL_TIMEOUT_S = 10.0
LOG_TAIL_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a server is to listen, on the loopback address."""

    http: int
    grpc: int
    metrics: int


class Server(Protocol):
    """How a server is started."""

    @property
    def name(self) -> str:
        """Shown in reports."""
        ...

    def command(self, repository: Path, ports: Ports) -> list[str]:
        """The argv that serves `repository` on `ports`."""
        ...


@dataclass(frozen=True, slots=True)
class Triton:
    """The real Triton that `peers/triton.sh` runs."""

    peers: Path
    name: str = "triton"
    flags: tuple[str, ...] = ()

    def command(self, repository: Path, ports: Ports) -> list[str]:
        """The argv of peers/triton.sh."""
        numbers = map(str, (ports.http, ports.grpc, ports.metrics))
        return [str(self.peers / "triton.sh"), str(repository), *numbers, "--", *self.flags]


@dataclass(frozen=True, slots=True)
class Penstock:
    """`penstock serve`, started by the words of `executable`, e.g. ("penstock",)."""

    executable: tuple[str, ...]
    flags: tuple[str, ...] = ()
    name: str = "penstock"

    def command(self, repository: Path, ports: Ports) -> list[str]:
        """The argv of penstock serve."""
        numbers = (ports.http, ports.grpc, ports.metrics)
        options = ("--http-port", "--grpc-port", "--metrics-port")
        flags = [w for o, n in zip(options, numbers, strict=True) for w in (o, str(n))]
        return [*self.executable, "serve", str(repository), *flags, *self.flags]


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that has said it is ready."""

    name: str
    pid: int
    ports: Ports

    @property
    def http_url(self) -> str:
        """`http://127.0.0.1:8000`."""
        return f"http://127.0.0.1:{self.ports.http}"

    @property
    def grpc_address(self) -> str:
        """`127.0.0.1:8001`."""
        return f"127.0.0.1:{self.ports.grpc}"


@contextmanager
def running(
    server: Server, repository: Path, log: Path, context: ssl.SSLContext | None = None
) -> Iterator[RunningServer]:
    """Start `server`, wait until it is ready, and end all its processes afterwards.

    `context`: what it is spoken TLS with, if it is.
    Raises BenchmarkError with the end of the log where it ends by itself or isn't ready in time.
    """
    ports = free_ports()
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        process = _start(server.command(repository, ports), output)
        stack.callback(stop, process)
        found = RunningServer(server.name, process.pid, ports)
        await_ready(process, found, log, context)
        yield found


def free_ports() -> Ports:
    """Three ports that nothing listened on a moment ago, and that no connection is given before the server has them."""
    chosen = resolve_ports(Settings(http_port=0, grpc_port=0, metrics_port=0))
    return Ports(chosen.http_port, chosen.grpc_port, chosen.metrics_port)


def await_ready(
    process: subprocess.Popen[bytes],
    server: RunningServer,
    log: Path,
    context: ssl.SSLContext | None = None,
) -> None:
    """Ask `/v2/health/ready` until it answers 200."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchmarkError(
                f"{server.name} ended with {process.returncode} before it was ready:\n{_tail(log)}"
            )
        scheme = "http" if context is None else "https"
        if _answers(f"{scheme}://127.0.0.1:{server.ports.http}/v2/health/ready", context):
            return
        time.sleep(0.05)
    raise BenchmarkError(f"{server.name} not ready in {READY_TIMEOUT_S:.0f} s:\n{_tail(log)}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the leader, and after its end or a time-out SIGKILL to all that is left of its family."""
    with ExitStack() as stack:
        family = pidfds(cpu.members(process.pid), stack)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        if process.poll() is None:
            family += pidfds(cpu.members(process.pid), stack)
        for one in family:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(one, signal.SIGKILL)
        for one in family:
            select.select([one], [], [], KILL_TIMEOUT_S)
    process.wait()


def pidfds(pids: Iterable[int], stack: ExitStack) -> list[int]:
    """A descriptor for each process that is still there: unlike its number, it never comes to mean another.

    It is readable once the process has ended. `stack` closes them.
    """
    found = []
    for pid in pids:
        with suppress(ProcessLookupError):
            found.append(os.pidfd_open(pid))
            stack.callback(os.close, found[-1])
    return found


def _start(command: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise BenchmarkError(f"can't start {command[0]}: {error.strerror}") from error


def _answers(url: str, context: ssl.SSLContext | None) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0, context=context) as response:
            return int(response.status) == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _tail(log: Path) -> str:
    return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
