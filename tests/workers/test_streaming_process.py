"""Decoupled models in real worker processes, and the pool that hands their responses on."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_workers import FakeLink, until
from pending import Heard, pending
from penstock import model_config
from penstock.errors import Unavailable
from penstock.repository.pool_policy import PoolPolicy
from penstock.repository.streaming_pool import StreamingPool
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.scheduler import SchedulingPolicy
from penstock.telemetry.statistics import ModelStatistics
from penstock.types import Array, Parameter
from penstock.workers.channel import Channel
from penstock.workers.control import WorkerProcess
from penstock.workers.instance import Instance
from penstock.workers.request import Part, PendingRequest
from penstock.workers.worker_commands import Load

APPS = Path(__file__).parent.parent / "apps"
REPEAT: dict[str, Any] = {
    "backend": "python",
    "model_transaction_policy": {"decoupled": True},
    "input": [
        {"name": "IN", "data_type": "TYPE_INT32", "dims": [-1]},
        {"name": "DELAY", "data_type": "TYPE_UINT32", "dims": [-1]},
    ],
    "output": [
        {"name": "OUT", "data_type": "TYPE_INT32", "dims": [1]},
        {"name": "IDX", "data_type": "TYPE_UINT32", "dims": [1]},
    ],
}


class Client:
    """A sink that keeps the first output's values, and takes what it is given, unless it is `slow`."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self.parameters: list[Mapping[str, Parameter]] = []
        self.slow = False
        self.untaken: list[Part] = []

    def part(self, request: PendingRequest, part: Part) -> None:
        """As Sink."""
        if isinstance(part.outputs, list):
            self.values.append(int(np.frombuffer(part.outputs[0].data, np.int32)[0]))
            self.parameters.append(part.parameters)
        self.untaken.append(part)
        if not self.slow:
            self.take()

    def take(self) -> None:
        """Take all that came."""
        while self.untaken:
            self.untaken.pop().taken()


class Bench:
    """A pool over one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard = Heard()
        self.statistics = ModelStatistics("m", "1", {})
        policy = PoolPolicy(SchedulingPolicy(BatchPolicy()))
        self.pool = StreamingPool(policy, self.statistics, self._start, lambda: None)
        self.processes: list[subprocess.Popen[bytes]] = []
        self._ids = count()
        self.config: dict[str, Any] = {}

    async def serve(self, app: str, config: dict[str, Any]) -> None:
        """Load it."""
        path = self.folder / "m" / "1" / "model.py"
        path.parent.mkdir(parents=True)
        shutil.copy(APPS / f"{app}.py", path)
        self.config = {"name": "m", **config}
        self.pool.add(await self._start(0), 0)

    def submit(self, client: Client, arrays: Mapping[str, Array], **parameters: Parameter) -> Any:
        """Send a request, which has a number for its id."""
        request = pending(
            arrays,
            rows=1,
            id=str(next(self._ids)),
            respond=self.heard,
            arrived_ns=time.monotonic_ns(),
            queue=self.pool,
        )
        request.plan.parameters.update(parameters)
        request.sink = client
        self.pool.submit(request)
        return request

    async def ended(self, request: PendingRequest) -> Any:
        """Its last word."""
        await until(lambda: request.id in self.heard.by_id)
        return self.heard.by_id[request.id]

    async def _start(self, index: int) -> Instance:
        ours, theirs = Channel.pair()
        fd = theirs.fileno()
        command = [sys.executable, "-m", "penstock.workers.main"]
        process = subprocess.Popen(  # noqa: ASYNC220 - it takes no time worth a thread
            [*command, "--fd", str(fd), "--parent", str(os.getpid())], pass_fds=(fd,)
        )
        theirs.close()
        self.processes.append(process)
        link: Any = FakeLink()
        worker = WorkerProcess(len(self.processes), process.pid, ours)
        loop = asyncio.get_running_loop()

        def exited(_: object) -> None:
            if not worker.exited.done():
                worker.exited.set_result("killed by SIGKILL")

        loop.run_in_executor(None, process.wait).add_done_callback(exited)
        instance = Instance(link, worker)
        config = model_config.to_json(self.config)
        load = Load("m", 1, str(self.folder / "m"), config, "m_0", "cpu", 1)
        await instance.load(load, 30)
        return instance

    async def end(self) -> None:
        await self.pool.close(0)
        for process in self.processes:
            process.terminate()
        await until(lambda: all(process.poll() is not None for process in self.processes))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.end()


def repeated(*values: int, delay_ms: int = 0) -> dict[str, Array]:
    return {
        "IN": np.array(values, np.int32),
        "DELAY": np.full(len(values), delay_ms, np.uint32),
    }


async def test_repeat(bench: Bench) -> None:
    await bench.serve("repeat", REPEAT)
    client = Client()
    assert await bench.ended(bench.submit(client, repeated(4, 2, 0, 1))) == b""
    assert client.values == [4, 2, 0, 1]
    assert client.parameters == [{"index": n} for n in range(4)]
    # many requests at once, whose threads go on while the next ones begin
    clients = [Client() for _ in range(20)]
    for number, each in enumerate(clients):
        request = bench.submit(each, repeated(*range(number)), in_threads=True)
        await bench.ended(request)
    assert [each.values for each in clients] == [list(range(number)) for number in range(20)]
    slow, quick = Client(), Client()
    slow.slow = True
    first = bench.submit(slow, repeated(*range(500)), in_threads=True)
    await until(lambda: len(slow.values) >= 64)
    assert await bench.ended(bench.submit(quick, repeated(7), in_threads=True)) == b""
    assert len(slow.values) == 64
    slow.slow = False
    slow.take()
    assert await bench.ended(first) == b""
    assert slow.values == list(range(500))
    await until(lambda: bench.statistics.execution_count == 23)


async def test_a_generator_without_end(bench: Bench) -> None:
    await bench.serve("countdown", {"backend": "python"})
    client = Client()
    request = bench.submit(client, {"FROM": np.array([[-1]], np.int32)})
    await until(lambda: len(client.values) > 1000)
    request.cancel()
    other = Client()
    assert await bench.ended(bench.submit(other, {"FROM": np.array([[3]], np.int32)})) == b""
    assert other.values == [3, 2, 1]


async def test_a_worker_that_dies_amid_responses(bench: Bench) -> None:
    await bench.serve("repeat", REPEAT)
    client, other = Client(), Client()
    begun = bench.submit(client, repeated(*range(1000), delay_ms=20), in_threads=True)
    await until(lambda: len(client.values) > 1)
    os.kill(bench.processes[0].pid, signal.SIGKILL)
    assert isinstance(await bench.ended(begun), Unavailable)
    assert await bench.ended(bench.submit(other, repeated(1, 2))) == b""
    assert other.values == [1, 2]


async def test_a_worker_is_asked_to_end_amid_responses(bench: Bench) -> None:
    """Its threads, and its main loop, wait for clients that take nothing."""
    await bench.serve("repeat", REPEAT)
    slow = Client()
    slow.slow = True
    for in_threads in (True, False):
        bench.submit(slow, repeated(*range(200)), in_threads=in_threads)
    await until(lambda: len(slow.values) == 128)
    bench.processes[0].terminate()
    await until(lambda: bench.processes[0].poll() is not None)
    assert bench.processes[0].returncode == 0
