"""Instances over real channels and slabs whose worker's end the test holds: no process is started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from penstock.backends.base import RequestInfo
from penstock.logs import LogSettings
from penstock.model_config import ModelConfig, Tensor
from penstock.types import Array, Parameter
from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.control import WorkerProcess
from penstock.workers.instance import Instance
from penstock.workers.message_parts import RequestError, ResponseTensor
from penstock.workers.scatter import write_outputs
from penstock.workers.slab import Slab
from penstock.workers.tensors_in_slab import read_inputs
from penstock.workers.worker_commands import (
    AttachSlab,
    CallAnswered,
    Cancel,
    DetachSlab,
    Execute,
    Load,
    Reset,
    SetLogging,
    Taken,
    decode_worker_command,
)
from penstock.workers.worker_events import BatchFailed, Done, Executed, Ready, Response, WorkerEvent

LOAD = Load("m", 1, "/nowhere", b"{}", "m_0", "cpu", 1)
CONFIG = ModelConfig(
    name="m", max_batch_size=64, output=(Tensor(name="X", data_type="TYPE_FP32", dims=(1,)),)
)
_numbers = count(1)


async def settle() -> None:
    """Let the event loop do all that is ready, sockets included."""
    for _ in range(10):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until it holds, where threads take part; the test's time-out ends what never does."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.001)


class FakeLink:
    """In the supervisor's place: a worker that is to stop is gone at once."""

    def __init__(self) -> None:
        self.stopped: list[WorkerProcess] = []
        self.logging: LogSettings | None = None
        self.wanted: dict[str, bool] | None = None
        self.kept: dict[str, tuple[bytes, WorkerProcess]] = {}
        """What an earlier gateway left: name → key and worker."""
        self.told_loaded: list[tuple[WorkerProcess, bytes]] = []

    async def inherited(self) -> dict[str, bool] | None:
        """As ControlLink."""
        return self.wanted

    def has_unclaimed(self, prefix: str) -> bool:
        """As ControlLink."""
        return any(name.startswith(prefix) for name in self.kept)

    def claim(self, name: str, key: bytes) -> WorkerProcess | None:
        """As ControlLink."""
        kept, worker = self.kept.pop(name, (b"", None))
        if worker is None or kept == key:
            return worker
        self.stop_worker(worker, 5)
        return None

    def end_unclaimed(self) -> None:
        """As ControlLink."""
        while self.kept:
            self.stop_worker(self.kept.popitem()[1][1], 5)

    def loaded(self, worker: WorkerProcess, key: bytes) -> None:
        """As ControlLink."""
        self.told_loaded.append((worker, key))

    def stop_worker(self, worker: WorkerProcess, grace_s: float) -> None:
        """As ControlLink."""
        self.stopped.append(worker)
        if not worker.exited.done():
            worker.exited.set_result("stopped")


class FakeWorker:
    """The worker's end of an instance. Its model gives input X back as output X."""

    def __init__(self) -> None:
        self.link = FakeLink()
        ours, self._channel = Channel.pair()
        self._channel.setblocking(False)
        self.process = WorkerProcess(next(_numbers), 4242, ours)
        self.instance = Instance(self.link, self.process)  # type: ignore[arg-type]
        self._slabs: dict[int, Slab] = {}
        self._batches: list[Execute] = []
        self.resets: list[int] = []
        self.said: list[Cancel | Taken] = []
        """What it was told of requests that it has."""
        self.logging: list[LogSettings] = []
        """All that it was told to log."""
        self.answered: list[CallAnswered] = []
        """Of what it asked."""

    async def load(self, timeout_s: float = 5) -> Instance:
        """The instance, ready for batches."""
        self.send(Ready(b"{}", 1, 0))
        await self.instance.load(LOAD, timeout_s)
        return self.instance

    def send(self, event: WorkerEvent) -> None:
        """Say something to the gateway."""
        self._channel.send(event)

    @property
    def batches(self) -> list[Execute]:
        """What it was given and has not answered, oldest first."""
        while self._channel.fileno() >= 0:
            try:
                data, descriptors = self._channel.receive()
            except (BlockingIOError, ChannelClosed):
                break
            match decode_worker_command(data):
                case Execute() as command:
                    self._batches.append(command)
                case Reset(number=number):
                    self.resets.append(number)
                case CallAnswered() as answer:
                    self.answered.append(answer)
                case SetLogging(settings=settings):
                    self.logging.append(settings)
                case AttachSlab(slab=number):
                    self._slabs[number] = Slab(descriptors[0])
                case Cancel() | Taken() as said:
                    self.said.append(said)
                case DetachSlab(slab=number):
                    self._slabs.pop(number).close()
        return self._batches

    @property
    def slabs(self) -> set[int]:
        """The numbers of those that it has."""
        assert self.batches is not None
        return set(self._slabs)

    @property
    def ids(self) -> list[list[str]]:
        """The requests' ids of each of `batches`."""
        return [[request.id for request in batch.requests] for batch in self.batches]

    async def answer(self, change: Callable[[Array], Array] = lambda x: x) -> list[str]:
        """Run its oldest batch; the ids of its requests."""
        command = self.batches[0]
        self._batches.pop(0)
        slab = self._slabs[command.slab]
        slab.refresh()
        (slot,) = command.inputs
        infos = [RequestInfo(request.rows) for request in command.requests]
        slots, errors = write_outputs(
            slab, command.output_offset, CONFIG, infos, {"X": change(read_inputs(slab, slot))}
        )
        self.send(Done(command.batch, slots, errors, slab.size_bytes, 1, 2, 3))
        await settle()
        return [request.id for request in command.requests]

    async def respond(
        self,
        batch: int,
        value: float | None = None,
        *,
        request: int = 0,
        final: bool = False,
        error: RequestError | None = None,
        nbytes: int = 4,
        **parameters: Parameter,
    ) -> None:
        """Its model, which is decoupled, sends a response, of that value where there is one."""
        tensors = None
        if value is not None:
            data = memoryview(np.full(nbytes // 4, value, np.float32).tobytes())
            tensors = (ResponseTensor("X", "FP32", (1, nbytes // 4), data),)
        self.send(Response(batch, request, tensors, parameters, error, final, 20, 3))
        await settle()

    async def executed(self) -> int:
        """The execution of its oldest batch is over, whose number that is."""
        number = self.batches.pop(0).batch
        self.send(Executed(number, 1, 2))
        await settle()
        return number

    async def heard(self) -> list[Cancel | Taken]:
        """What it was told since it was asked last."""
        await settle()
        assert self.batches is not None
        said, self.said = self.said, []
        return said

    async def fail(self, reason: str) -> None:
        """The model fails on its oldest batch."""
        command = self.batches[0]
        self._batches.pop(0)
        self.send(BatchFailed(command.batch, reason))
        await settle()

    async def crash(self, reason: str = "killed by SIGKILL") -> None:
        """The process ends."""
        self.close()
        self.process.exited.set_result(reason)
        await settle()

    def close(self) -> None:
        """Close the worker's own descriptors."""
        self.batches.clear()
        self._channel.close()
        for slab in self._slabs.values():
            slab.close()
        self._slabs.clear()


def row(value: float) -> dict[str, Array]:
    """One row of input X."""
    return {"X": np.full((1, 1), value, np.float32)}


def rows(values: Sequence[float]) -> dict[str, Array]:
    """Some rows of input X."""
    return {"X": np.array(values, np.float32).reshape(-1, 1)}
