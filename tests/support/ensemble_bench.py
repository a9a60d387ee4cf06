"""An ensemble over models whose workers the test plays. Each model gives X back as X, until the test changes it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble_configs import plain
from fake_workers import settle
from nested_bench import Models, served
from pending import Heard, joined
from penstock import model_config
from penstock.errors import NotFound, PenstockError
from penstock.model_config import ConfigDict
from penstock.repository.ensemble_pool import EnsemblePolicy, EnsemblePool
from penstock.repository.nested import NestedCalls
from penstock.repository.served_model import ServedModel
from penstock.repository.signature import Signature
from penstock.telemetry.statistics import ModelStatistics
from penstock.types import Array, InferHeader, Parameter, RequestedOutput, TensorSpec
from penstock.workers.request import PendingRequest
from pool_bench import Bench, Make

MANY = 100_000
ROOM = EnsemblePolicy(max_requests=100, max_bytes=1 << 30)


class StepModels(Models):
    """As a repository, with reasons."""

    reasons: dict[str, str] = {}  # noqa: RUF012 - never changed

    def get(self, name: str, version: str = "") -> ServedModel:
        """As ModelRepository."""
        model = super().get(name, version)
        if not model.accepts:
            raise NotFound(f"Request for unknown model: '{name}' has no available versions")
        return model

    def find(self, name: str, version: str = "") -> ServedModel:
        """As ModelRepository."""
        return self.get(name, version)

    def why_not(self, name: str) -> str:
        """As ModelRepository."""
        return "gone" if name not in self.models else ""


class EnsembleBench:
    """Models by name, ensembles of them, and what their requests heard."""

    def __init__(self, make_pool: Make) -> None:
        self._make_pool = make_pool
        self.models = StepModels()
        self.calls = NestedCalls(self.models)
        self.benches: dict[str, Bench] = {}
        self.heard = Heard()

    async def add(self, name: str, workers: int = 1, room: int = 100, **changes: Any) -> Bench:
        """Serve a model, or another one in its place; `room`: requests that may wait."""
        config = {**plain(name), "max_batch_size": MANY, **changes}
        bench = await self._make_pool(max_rows=MANY, max_queue_requests=room).with_workers(workers)
        self.benches[name] = bench
        self.models.put(name, served(bench.pool, config))
        return bench

    def ensemble(self, config: ConfigDict, policy: EnsemblePolicy = ROOM) -> EnsemblePool:
        """Serve an ensemble."""
        parsed = model_config.parse(config)
        statistics = ModelStatistics(parsed.name, "1", {})
        pool = EnsemblePool(config, policy, statistics, self.models, self.calls)
        model = ServedModel(
            parsed.name, 1, config, parsed, Signature(parsed), pool.labels, statistics, pool, None
        )
        self.models.put(parsed.name, model)
        return pool

    def request(
        self,
        name: str,
        id: str,
        array: Array,
        outputs: Sequence[str] = (),
        **parameters: Parameter,
    ) -> PendingRequest:
        """A request of input IN, not yet sent."""
        model = self.models.models[name]
        inputs = (TensorSpec("IN", "FP32", array.shape),) if array.size else ()
        header = InferHeader(
            name, "", inputs, tuple(RequestedOutput(each) for each in outputs), parameters
        )
        return PendingRequest(
            model.signature.plan(header),
            id,
            [array.tobytes()] if array.size else [],
            joined,
            self.heard,
            time.monotonic_ns(),
            model.pool,
        )

    def submit(self, name: str, id: str, value: float, rows: int = 1, **more: Any) -> Any:
        """A request whose rows all hold the value."""
        request = self.request(name, id, np.full((rows, 1), value, np.float32), **more)
        self.models.models[name].pool.submit(request)
        return request

    async def answer(self, name: str, plus: float = 0) -> list[str]:
        """Have the model's first worker with work run its oldest batch."""
        await settle()
        worker = next(worker for worker in self.benches[name].workers if worker.batches)
        return await worker.answer(lambda x: x + np.float32(plus))

    def running(self, name: str) -> list[list[str]]:
        """Batches that the model's workers have."""
        return self.benches[name].running

    @property
    def values(self) -> dict[str, Any]:
        """Request's id → the values of its answer, or its error's class."""
        return {
            name: np.frombuffer(answer, np.float32).tolist()
            if isinstance(answer, bytes)
            else type(answer).__name__
            for name, answer in self.heard.by_id.items()
        }

    def error(self, id: str) -> str:
        """The text of the request's error."""
        answer = self.heard.by_id[id]
        assert isinstance(answer, PenstockError), answer
        return str(answer)

    @property
    def lent(self) -> int:
        """Slabs of all models that are lent."""
        return sum(bench.pool._loans.lent for bench in self.benches.values())
