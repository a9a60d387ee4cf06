"""What a load client is, and what it tells after a run."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock_loadtest.errors import BenchmarkError


@dataclass(frozen=True, slots=True)
class Load:
    """One run of a client."""

    requests: int
    """Answered with success, as far as the client can see."""
    wall_s: float
    """From the client's start to its end."""
    per_second: float
    """Throughput while all connections were busy."""
    median_us: float
    p99_us: float
    client_cpu_s: float
    client_threads: int


class Client(Protocol):
    """Sends one case's requests to one running server. A closed loop: an answer lets the next request go."""

    def warm_up(self, seconds: float) -> None:
        """Bring the server to its steady state."""
        ...

    def run(self, seconds: float) -> Load:
        """Load for about `seconds`. Raises BenchmarkError where any request failed."""
        ...


@dataclass(frozen=True, slots=True)
class Finished:
    """A client program that has ended well."""

    output: str
    wall_s: float
    cpu_s: float


def run_program(command: Sequence[str], timeout_s: float) -> Finished:
    """Run a client program to its end and account its CPU time.

    Raises BenchmarkError where it is missing, fails, or hangs.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{command[0]} did not end in {timeout_s:.0f} s") from None
    except OSError as error:
        raise BenchmarkError(f"can't start {command[0]}: {error.strerror}") from error
    wall_s = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        text = (done.stdout + done.stderr)[-1000:]
        raise BenchmarkError(f"{command[0]} ended with {done.returncode}:\n{text}")
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Finished(done.stdout, wall_s, cpu_s)
