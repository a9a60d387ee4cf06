"""Several open-loop clients that start together, each in a process of its own."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.resilience.answers import WRONG, Answers
from penstock_loadtest.resilience.open_loop import Stream

LEAD_S: Final = 0.2
"""From the word to start to the start."""
EXTRA_S: Final = 30.0
"""A client that needs this much longer than its stream and its patience hangs."""
PER_PROCESS: Final = 700.0
"""Requests a second that one client process sends without being late on a slow core."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One client process's outcome."""

    stream: Stream
    answers: Answers
    cores: float
    """CPU-seconds that the client took in a second."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client process that runs."""

    stream: Stream
    process: subprocess.Popen[str]
    result: Path
    log: Path

    def fail(self, what: str) -> BenchmarkError:
        """The error that says so, with what the client wrote."""
        return BenchmarkError(f"the open-loop client {what}:\n{self.log.read_text()[-1000:]}")


@dataclass(frozen=True, slots=True)
class Sending:
    """Clients that send since `start_s` on the monotonic clock."""

    start_s: float
    clients: Sequence[Client]

    def is_over(self) -> bool:
        """Whether all clients have ended."""
        return all(client.process.poll() is not None for client in self.clients)

    def stop(self) -> None:
        """Let the clients send no more; they wait for the answers that are due."""
        for client in self.clients:
            client.process.terminate()

    def outcomes(self) -> list[Sent]:
        """Wait for all clients' ends. Raises BenchmarkError where one fails, hangs, or got a wrong answer."""
        return [_outcome(client, self.start_s) for client in self.clients]


@contextmanager
def sending(streams: Sequence[Stream], folder: Path) -> Iterator[Sending]:
    """Start a client for each stream, and all streams at one time. No client outlives the block.

    Raises BenchmarkError where a client can't connect.
    """
    with ExitStack() as stack:
        clients = [_start(stream, folder, index, stack) for index, stream in enumerate(streams)]
        for client in clients:
            assert client.process.stdout is not None
            if client.process.stdout.readline() != "ready\n":
                raise client.fail("did not connect")
        start_s = time.monotonic() + LEAD_S
        for client in clients:
            assert client.process.stdin is not None
            client.process.stdin.write(f"{start_s}\n")
            client.process.stdin.flush()
        yield Sending(start_s, clients)


def send(streams: Sequence[Stream], folder: Path) -> list[Sent]:
    """Send all streams at one time, to their ends."""
    with sending(streams, folder) as under_way:
        return under_way.outcomes()


def split(stream: Stream) -> list[Stream]:
    """The same load from as many processes as it needs: Poisson processes add up to one of the sum of their rates."""
    parts = math.ceil(stream.per_second / PER_PROCESS)
    each = stream.per_second / parts
    return [
        msgspec.structs.replace(stream, per_second=each, seed=stream.seed * 1000 + part)
        for part in range(parts)
    ]


def together(sent: Sequence[Sent]) -> Answers:
    """The answers of all, in the order they were due."""
    every = np.concatenate([one.answers for one in sent])
    return every[np.argsort(every["due_s"], kind="stable")]


def _start(stream: Stream, folder: Path, index: int, stack: ExitStack) -> Client:
    spec, result, log = (folder / f"stream-{index}.{end}" for end in ("json", "npz", "log"))
    spec.write_bytes(msgspec.json.encode(stream))
    module = [sys.executable, "-m", "penstock_loadtest.resilience.open_loop"]
    output = stack.enter_context(log.open("w"))
    process = stack.enter_context(
        subprocess.Popen(
            [*module, str(spec), str(result)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    )
    stack.callback(process.kill)
    return Client(stream, process, result, log)


def _outcome(client: Client, start_s: float) -> Sent:
    ends_s = start_s + client.stream.seconds + client.stream.patience_s + EXTRA_S
    try:
        code = client.process.wait(max(0.0, ends_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise client.fail("did not end") from None
    if code:
        raise client.fail(f"ended with {code}")
    with np.load(client.result) as found:
        sent = Sent(client.stream, found["answers"], float(found["cores"]))
    if wrong := int(np.count_nonzero(sent.answers["code"] == WRONG)):
        raise BenchmarkError(f"{wrong} answers were not those of their requests")
    return sent
