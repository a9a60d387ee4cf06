"""Two versions of a model whose answers the test gives, and their roll-out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from penstock import model_config
from penstock.errors import Cancelled, ModelFailed, PenstockError
from penstock.gateway.client_memory import ClientMemory
from penstock.gateway.inference import Inference
from penstock.gateway.live_rollout import LiveRollout
from penstock.model_config import ConfigDict
from penstock.repository.answers import encoded
from penstock.repository.entries import ModelEntry, VersionEntry
from penstock.repository.index import ModelIndex
from penstock.repository.sequence_handover import Handovers
from penstock.repository.sequence_pool import SequencePool
from penstock.repository.served_model import ServedModel
from penstock.repository.signature import Signature
from penstock.rollouts.observation import Observation, ShadowPair
from penstock.rollouts.plan import RolloutPlan, plan_of
from penstock.telemetry.statistics import ModelStatistics
from penstock.types import (
    NO_TERMS,
    CallTerms,
    InferHeader,
    OutputTensor,
    Parameter,
    SequenceKey,
    TensorSpec,
)
from penstock.workers.request import Answer, PendingRequest

CONFIG: Final[ConfigDict] = {
    "name": "m",
    "max_batch_size": 8,
    "input": [
        {"name": "A", "data_type": "TYPE_FP32", "dims": [2]},
        {"name": "B", "data_type": "TYPE_FP32", "dims": [1]},
    ],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [3]}],
}
HEADER: Final = InferHeader(
    "m", "", (TensorSpec("A", "FP32", (1, 2)), TensorSpec("B", "FP32", (1, 1)))
)
A: Final = np.array([1, 2], np.float32).tobytes()
B: Final = np.array([3], np.float32).tobytes()


class Times:
    """What a worker has measured."""

    input_ns = output_ns = 0
    infer_ns = 2_000_000


class FakePool:
    """A version's queue: requests wait for the test."""

    def __init__(self) -> None:
        self.requests: list[PendingRequest] = []
        self.at_once: list[PendingRequest] = []
        self.refusal: PenstockError | None = None
        self.ready = self.accepts = True
        self.problem = self.last_crash = ""
        self.instances: list[object] = [self]

    def submit(self, request: PendingRequest) -> None:
        """As ModelPool."""
        if self.refusal is not None:
            raise self.refusal
        self.requests.append(request)

    def submit_at_once(self, request: PendingRequest) -> None:
        """As ModelPool."""
        self.submit(request)
        self.at_once.append(request)

    def cancel(self, request: PendingRequest) -> None:
        """As ModelPool."""
        if not request.done:
            request.finish(Cancelled("the client is gone"))

    def answer(self, *values: float) -> None:
        """Y to the request that came last."""
        request = self.requests[-1]
        outputs = [y(*values)]
        if request.trace is not None:
            now_ns = time.monotonic_ns()
            request.trace.computed(now_ns - 3_000_000, now_ns, Times(), outputs)
        request.finish(encoded(request, outputs))

    def fail(self, error: PenstockError | None = None) -> None:
        """An error for the request that came last."""
        self.requests[-1].finish(error or ModelFailed("no"))

    def explain(self) -> dict[str, Any]:
        """As ModelPool."""
        return {}

    def tell_logging(self) -> None:
        """As ModelPool."""

    async def close(self, grace_s: float) -> None:
        """As ModelPool."""


class SequencesPool(SequencePool):
    """Those of a stateful model. It has the sequences that the test says."""

    def __init__(self) -> None:
        self._fake = FakePool()
        self.requests = self._fake.requests
        self.held: set[SequenceKey] = set()
        self.submit = self._fake.submit  # type: ignore[method-assign]
        self.cancel = self._fake.cancel  # type: ignore[method-assign]
        self.answer = self._fake.answer
        self.fail = self._fake.fail

    @property
    def ready(self) -> bool:
        """As ModelPool."""
        return True

    @property
    def accepts(self) -> bool:
        """As ModelPool."""
        return True

    @property
    def queue(self) -> Any:
        """As SequencePool."""
        return SimpleNamespace(live=len(self.held))

    def holds(self, key: SequenceKey) -> bool:
        """As SequencePool."""
        return key in self.held


def y(*values: float) -> OutputTensor:
    """An output."""
    row = np.array([values or (0.1, 0.7, 0.2)], np.float32)
    return OutputTensor("Y", "FP32", row.shape, memoryview(row.tobytes()))


def version(number: int, pool: Any, changes: Mapping[str, Any] | None = None) -> ServedModel:
    """A version of the model `m`, loaded."""
    config: ConfigDict = {**CONFIG, **(changes or {})}
    parsed = model_config.parse(config)
    name = parsed.name
    statistics = ModelStatistics(name, str(number), {})
    return ServedModel(name, number, config, parsed, Signature(parsed), {}, statistics, pool, None)


class Index(ModelIndex):
    """A repository of what the test puts there."""

    def __init__(self) -> None:
        super().__init__()
        self._starting = False
        self.handovers = Handovers()

    def put(self, model: ServedModel, key: bytes = b"files") -> None:
        """It is served from now on, in the place of another one of that version."""
        entry = self._entries.setdefault(model.name, ModelEntry(model.name, wanted=True))
        entry.versions[model.version] = VersionEntry("READY", "", model, "fake", key)
        self._changed()

    def take(self, name: str, number: int, *, folder_too: bool = False) -> None:
        """It isn't any more."""
        entry = self._entries[name]
        if folder_too:
            del entry.versions[number]
        else:
            entry.versions[number] = VersionEntry("UNAVAILABLE", "unloaded")
        self._changed()

    def change(self) -> None:
        """Something is not as it was."""
        self._changed()


class Noted:
    """A judge who only listens."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.pairs: list[ShadowPair] = []

    def observe(self, observation: Observation) -> None:
        """As Judge."""
        self.seen.append(observation)

    def pair(self, pair: ShadowPair) -> None:
        """As Judge."""
        self.pairs.append(pair)


class Encoder:
    """Tells which version it speaks for."""

    def __init__(self, model: ServedModel) -> None:
        self.version = model.version

    def of(self, model: ServedModel) -> Encoder:
        """As Retargetable."""
        return Encoder(model)

    def __call__(self, request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """As Encode."""
        values = np.frombuffer(outputs[0].data, np.float32).tolist()
        return f"{self.version} {request.id}: {[round(value, 3) for value in values]}".encode()


class RolloutBench:
    """Model `m`: version 1 stable, version 2 the candidate."""

    def __init__(self, config: Mapping[str, Any] | None = None, **plan: Any) -> None:
        """`config`: changes of the model's. `plan`: of the roll-out's."""
        self.stable, self.candidate = FakePool(), FakePool()
        self.index = Index()
        self.index.put(version(1, self.stable, config))
        self.index.put(version(2, self.candidate, config))
        self.index.set_default("m", 1)
        self.judge = Noted()
        self.live = LiveRollout(self.index, make_plan(**plan), self.judge)
        self.live.begin(self.index.get("m", "1"))
        self.index.roll_out("m", self.live)
        repository: Any = self.index
        self.inference = Inference(repository, ClientMemory(allowed=False))

    def send(
        self,
        request_id: str = "",
        terms: CallTerms = NO_TERMS,
        sink: Any = None,
        header: InferHeader = HEADER,
        **parameters: Parameter,
    ) -> Sent:
        """A client's request."""
        if parameters:
            header = replace(header, parameters=parameters)
        bound = self.inference.bind(header, terms, request_id)
        sent = Sent(bound.model.version)
        sent.pending = self.inference.submit(
            bound, request_id, [A, B], Encoder(bound.model), sent.respond, 100, terms, sink
        )
        return sent


class Sent:
    """A request, as its client sees it."""

    pending: PendingRequest

    def __init__(self, first: int) -> None:
        self.first = first
        """The version that it went to first."""
        self.answers: list[Answer] = []

    def respond(self, request: PendingRequest, answer: Answer) -> None:
        """As Respond."""
        assert request is self.pending
        self.answers.append(answer)

    @property
    def answer(self) -> Answer:
        """The only one."""
        (answer,) = self.answers
        return answer


def make_plan(**changes: Any) -> RolloutPlan:
    """From version 1 of `m` to 2."""
    return plan_of({"model": "m", "stable": 1, "candidate": 2, **changes})


async def turns(count: int = 3) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)
