"""The same ONNX files by onnxruntime and by openvino, as a worker runs them: batches in turn, so that what the machine
does beside falls on both alike."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from penstock.backends.base import Batch, LoadedModel, LoadSpec, RequestInfo
from penstock.backends.registry import load
from penstock.types import Array
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.marked import table

NAMES: Final = ("onnxruntime", "openvino")
PART: Final = "backends"
TOKENS: Final = 5000
"""Ids of tokens are below."""
WARM_UP: Final = 3
TOLERANCE: Final = 1e-3

Inputs = Callable[[int], Mapping[str, Array]]
"""Rows → a batch."""


@dataclass(frozen=True, slots=True)
class Case:
    """A file, and what it is asked."""

    name: str
    file: Path
    """Below the model repository."""
    inputs: Inputs
    batches: Sequence[int]


@dataclass(frozen=True, slots=True)
class Measured:
    """One batch size of one case."""

    case: str
    rows: int
    threads: int
    ratios: Sequence[float]
    """onnxruntime's time over openvino's, of each pair of runs."""

    def row(self) -> Sequence[str]:
        """Of the table."""
        low, _, high = statistics.quantiles(self.ratios, n=4)
        middle = statistics.median(self.ratios)
        return (
            self.case,
            str(self.rows),
            str(self.threads),
            f"{middle:.2f}",
            f"{low:.2f} to {high:.2f}",
        )


def cases() -> Sequence[Case]:
    """Of the repository's models."""
    return (
        Case("digits", Path("digits/1/model.onnx"), _images, (1, 8, 64)),
        Case("embedder, 32 tokens", Path("embedder/1/model.onnx"), _texts(32), (1, 8, 32)),
        Case("embedder, 128 tokens", Path("embedder/1/model.onnx"), _texts(128), (1, 8)),
    )


def measure(
    repository: Path, threads: Sequence[int], rounds: int, say: Callable[[str], object]
) -> list[Measured]:
    """Raises BenchmarkError where a model is missing, or the two don't agree."""
    found = []
    for case in cases():
        path = (repository / case.file).absolute()
        if not path.is_file():
            raise BenchmarkError(f"there is no {path}")
        for count in threads:
            with _loaded(path, count) as models:
                for rows in case.batches:
                    say(f"{case.name}, {rows} rows, {count} threads")
                    ratios = _ratios(models, case.inputs(rows), rows, rounds)
                    found.append(Measured(case.name, rows, count, ratios))
    return found


def report(found: Sequence[Measured]) -> str:
    """A table in Markdown."""
    heads = ("model", "rows", "threads", "onnxruntime : openvino", "half of the pairs")
    return table(heads, [each.row() for each in found])


def _ratios(
    models: Mapping[str, LoadedModel], inputs: Mapping[str, Array], rows: int, rounds: int
) -> list[float]:
    batch = Batch(inputs, (RequestInfo(rows),))
    answers = [_run(models[name], batch) for name in NAMES]
    for name, array in answers[0].items():
        if not np.allclose(array, answers[1][name], rtol=TOLERANCE, atol=TOLERANCE):
            raise BenchmarkError(f"the backends give different {name}")
    for _ in range(WARM_UP):
        for name in NAMES:
            _run(models[name], batch)
    ratios = []
    for turn in range(rounds):
        # each is the first one in every second turn
        order = NAMES if turn % 2 else NAMES[::-1]
        times = {}
        for name in order:
            started = time.perf_counter()
            models[name].execute(batch)
            times[name] = time.perf_counter() - started
        ratios.append(times["onnxruntime"] / times["openvino"])
    return ratios


def _run(model: LoadedModel, batch: Batch) -> dict[str, Array]:
    answers = model.execute(batch)
    if not isinstance(answers, Mapping):
        raise BenchmarkError(f"a batch failed: {answers}")
    return {name: np.array(array) for name, array in answers.items()}


@contextmanager
def _loaded(path: Path, threads: int) -> Iterator[Mapping[str, LoadedModel]]:
    with tempfile.TemporaryDirectory(prefix="penstock-backends-") as name:
        folder = Path(name) / "model"
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.onnx").symlink_to(path)
        models = {
            backend: load(
                LoadSpec(
                    "model",
                    1,
                    folder,
                    {"name": "model", "backend": backend},
                    backend,
                    "cpu",
                    threads,
                )
            )
            for backend in NAMES
        }
        try:
            yield models
        finally:
            for model in models.values():
                model.close()


def _images(rows: int) -> Mapping[str, Array]:
    return {"IMAGE": np.random.default_rng(rows).random((rows, 1, 8, 8), np.float32)}


def _texts(length: int) -> Inputs:
    def inputs(rows: int) -> Mapping[str, Array]:
        ids: Array = np.random.default_rng(rows).integers(1000, TOKENS, (rows, length))
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    return inputs
