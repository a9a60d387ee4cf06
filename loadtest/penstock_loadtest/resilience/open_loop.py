"""The open-loop client, a program of its own: requests are due by a Poisson process, whatever became of earlier ones.

`python -m penstock_loadtest.resilience.open_loop STREAM.json RESULT.npz` connects, says `ready`, reads the time to
start from standard input, and sends until the stream's end or SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import msgspec
import numpy as np

from penstock_loadtest.resilience.answers import ANSWER, OK, WRONG
from penstock_loadtest.resilience.sleeper import NUMBERS, Requests, read_answer

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
CHUNK: Final = 1024
CONNECTIONS: Final = 8
"""Requests take them in turns, so that the streams that a connection may have are no limit."""
CONNECT_TIMEOUT_S: Final = 20.0


class Stream(msgspec.Struct, frozen=True):
    """What one client process sends."""

    address: str
    per_second: float
    seconds: float
    """Requests are due in this time."""
    patience_s: float
    """How long the client waits for an answer, counted from the time its request was due."""
    seed: int
    tenant: str = ""


def arrivals(per_second: float, seed: int) -> Iterator[float]:
    """Times of a Poisson process in seconds, for ever; the same for the same seed."""
    random, last = np.random.default_rng(seed), 0.0
    while True:
        for gap in random.exponential(1 / per_second, CHUNK).tolist():
            last += gap
            yield last


class OpenLoop:
    """Sends one stream's requests, and remembers what became of them."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._requests = Requests()
        self._metadata = (("x-tenant", stream.tenant),) if stream.tenant else ()
        self._found: list[tuple[float, float, float, int, int]] = []
        self._channels: list[Any] = []
        self._calls: list[Any] = []
        self._start_s = 0.0
        self.stop = asyncio.Event()

    async def connect(self) -> None:
        """Open all connections."""
        # channels to the same address would else share one connection
        options = [("grpc.use_local_subchannel_pool", 1)]
        for _ in range(CONNECTIONS):
            channel = grpc.aio.insecure_channel(self._stream.address, options)
            self._channels.append(channel)
            self._calls.append(channel.unary_unary(METHOD))
        ready = asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        await asyncio.wait_for(ready, CONNECT_TIMEOUT_S)

    async def run(self, start_s: float) -> np.ndarray[Any, Any]:
        """Send from `start_s` (monotonic clock) on, and wait for the last answer; records of ANSWER."""
        self._start_s = start_s
        async with asyncio.TaskGroup() as tasks:
            for number, due_s in enumerate(arrivals(self._stream.per_second, self._stream.seed)):
                if due_s >= self._stream.seconds or not await self._wait_until(due_s):
                    break
                tasks.create_task(self._send(number % NUMBERS, due_s))
        for channel in self._channels:
            await channel.close()
        return np.array(sorted(self._found), ANSWER)

    async def _wait_until(self, due_s: float) -> bool:
        """False where the stream is to stop."""
        left_s = due_s - self._now_s()
        if left_s > 0:
            await asyncio.sleep(left_s)
        return not self.stop.is_set()

    async def _send(self, number: int, due_s: float) -> None:
        sent_s, process = self._now_s(), 0
        call = self._calls[number % CONNECTIONS]
        left_s = max(0.001, due_s + self._stream.patience_s - sent_s)
        try:
            body = await call(self._requests.body(number), timeout=left_s, metadata=self._metadata)
            echoed, process = read_answer(body)
            code = OK if echoed == number else WRONG
        except grpc.aio.AioRpcError as error:
            code = error.code().value[0]
        except ValueError:
            code = WRONG
        self._found.append((due_s, sent_s, self._now_s(), code, process))

    def _now_s(self) -> float:
        return time.monotonic() - self._start_s


async def _main(stream: Stream, result: Path) -> None:
    client = OpenLoop(stream)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, client.stop.set)
    await client.connect()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    start_s = float(await asyncio.to_thread(sys.stdin.readline))
    cpu_s, wall_s = time.process_time(), time.monotonic()
    answers = await client.run(start_s)
    cores = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
    np.savez(result, answers=answers, cores=cores)


if __name__ == "__main__":
    asyncio.run(
        _main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Stream), Path(sys.argv[2]))
    )
