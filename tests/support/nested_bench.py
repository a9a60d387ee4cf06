"""Models whose workers the test plays, for those who call them by name."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock import model_config
from penstock.errors import NotFound, PenstockError
from penstock.model_config import ConfigDict
from penstock.repository.model_pool import ModelPool
from penstock.repository.nested import NestedCalls
from penstock.repository.nested_call import Tensors, Terms
from penstock.repository.served_model import ServedModel
from penstock.repository.signature import Signature
from penstock.telemetry.statistics import ModelStatistics
from penstock.types import DATATYPES, Array, OutputTensor
from pool_bench import Bench

NO_TERMS = Terms()

X: ConfigDict = {
    "name": "m",
    "max_batch_size": 100_000,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [1]}],
    "output": [{"name": "X", "data_type": "TYPE_FP32", "dims": [1]}],
}
"""What `FakeWorker` plays."""


def served(pool: ModelPool, config: ConfigDict = X, timeout_us: int | None = None) -> ServedModel:
    """A model of that configuration."""
    parsed = model_config.parse(config)
    statistics = ModelStatistics(parsed.name, "1", {})
    return ServedModel(
        parsed.name, 1, config, parsed, Signature(parsed), {}, statistics, pool, timeout_us
    )


class Models:
    """A repository of models that the test made."""

    def __init__(self) -> None:
        self.models: dict[str, ServedModel] = {}
        self.generation = 0

    def get(self, name: str, version: str = "") -> ServedModel:
        """As ModelRepository."""
        if name not in self.models:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        return self.models[name]

    def put(self, name: str, model: ServedModel) -> None:
        """Serve it from now on."""
        self.models[name] = model
        self.generation += 1


class NestedBench:
    """One model, `m`, and what those who called it were answered."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.models = Models()
        self.models.put("m", served(bench.pool))
        self.calls = NestedCalls(self.models)
        self.answers: list[Tensors | PenstockError] = []

    def submit(self, array: Array, terms: Terms = NO_TERMS, **more: Any) -> Any:
        """A call of `m`."""
        inputs = tensors({"X": array})
        return self.calls.submit("m", "", inputs, (), terms, self.answers.append, **more)

    @property
    def values(self) -> list[list[float]]:
        """Of all answers, which are still valid."""
        return [as_values(answer) for answer in self.answers]


def as_values(answer: Tensors | PenstockError) -> list[float]:
    """Of its only output."""
    assert isinstance(answer, Tensors), answer
    (output,) = answer.outputs
    values: list[float] = np.frombuffer(output.data, np.float32).tolist()
    return values


def tensors(arrays: Mapping[str, Array]) -> Sequence[OutputTensor]:
    """As calls take them."""
    return [
        OutputTensor(name, DATATYPES[array.dtype], array.shape, array.tobytes())
        for name, array in arrays.items()
    ]


def in_us(timeout_us: float) -> float:
    """A deadline."""
    return time.monotonic_ns() / 1000 + timeout_us
