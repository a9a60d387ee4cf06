"""A request that makes the model fail is answered alone, and its mates get their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_files import batch_of, each, whole
from penstock.backends.base import Batch, Outputs, RequestInfo
from penstock.backends.batch_outputs import check_rows
from penstock.backends.device_memory import OutOfDeviceMemory, is_out_of_device_memory
from penstock.backends.isolation import one_by_one, one_line, run_isolated
from penstock.errors import LoadFailed, ModelFailed

POISON = -1.0


def double(batch: Batch) -> Outputs:
    """A model that can't stand POISON."""
    array = batch.inputs["X"]
    if (array == POISON).any():
        raise ValueError("poison")
    return {"Y": array * 2}


def row(*values: float) -> dict[str, np.ndarray]:
    return {"X": np.array(values, np.float32)}


def test_good_batch_runs_once_and_whole() -> None:
    calls: list[int] = []

    def run(batch: Batch) -> Outputs:
        calls.append(len(batch.requests))
        return double(batch)

    answer = whole(run_isolated(run, batch_of(row(1), row(2, 3))))
    assert answer["Y"].tolist() == [2, 4, 6]
    assert calls == [2]


def test_bad_request_fails_alone() -> None:
    answers = each(run_isolated(double, batch_of(row(1), row(POISON, 5), row(2, 3))))
    assert answers[0]["Y"].tolist() == [2]
    assert isinstance(answers[1], ModelFailed)
    assert str(answers[1]) == "ValueError: poison"
    assert answers[2]["Y"].tolist() == [4, 6]


def test_single_request_that_fails_raises() -> None:
    with pytest.raises(ModelFailed, match=r"^ValueError: poison$"):
        run_isolated(double, batch_of(row(POISON)))


@given(st.lists(st.integers(min_value=1, max_value=5), min_size=1, max_size=8))
def test_one_by_one_covers_the_batch_in_order(rows: list[int]) -> None:
    array = np.arange(sum(rows))
    batch = Batch({"X": array}, [RequestInfo(count, id=str(i)) for i, count in enumerate(rows)])
    parts = list(one_by_one(batch))
    assert [part.requests[0].id for part in parts] == [str(i) for i in range(len(rows))]
    assert [len(part.inputs["X"]) for part in parts] == rows
    assert np.concatenate([part.inputs["X"] for part in parts]).tolist() == array.tolist()
    assert all(np.shares_memory(part.inputs["X"], array) for part in parts)


@pytest.mark.parametrize("array", [np.zeros(()), np.zeros((3, 2))])
def test_check_rows_names_output_and_shape(array: np.ndarray) -> None:
    with pytest.raises(
        ModelFailed, match=r"output 'Y' has shape \[.*\], expected first dimension 2"
    ):
        check_rows("Y", array, 2)


def test_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "ValueError: a b"
    assert one_line(ValueError()) == "ValueError"
    assert one_line(LoadFailed("said already")) == "said already"


class SmallGpu:
    """A model on a GPU that holds so many rows. Y is X doubled; it can't stand POISON."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.calls: list[int] = []

    def __call__(self, batch: Batch) -> Outputs:
        rows = sum(request.rows for request in batch.requests)
        self.calls.append(rows)
        if rows > self.rows:
            raise OutOfDeviceMemory(f"{rows} rows")
        return double(batch)


def test_a_batch_too_large_for_the_gpu_runs_in_halves() -> None:
    gpu = SmallGpu(2)
    answer = whole(run_isolated(gpu, batch_of(*[row(value) for value in range(7)])))
    assert answer["Y"].tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert gpu.calls == [7, 3, 1, 2, 4, 2, 2]


def test_a_request_too_large_for_the_gpu_fails_alone() -> None:
    gpu = SmallGpu(2)
    answers = each(run_isolated(gpu, batch_of(row(1), row(2), row(3, 4, 5), row(6))))
    assert [a["Y"].tolist() for a in (answers[0], answers[1], answers[3])] == [[2], [4], [12]]
    assert isinstance(answers[2], ModelFailed)
    assert str(answers[2]) == (
        "out of GPU memory: this request alone, of 3 rows, does not fit: 3 rows"
    )
    with pytest.raises(ModelFailed, match=r"^out of GPU memory: this request alone, of 3 rows"):
        run_isolated(gpu, batch_of(row(1, 2, 3)))


def test_a_request_that_fails_in_a_half_fails_alone() -> None:
    answers = each(run_isolated(SmallGpu(2), batch_of(row(1), row(2), row(POISON), row(4))))
    assert [isinstance(answer, ModelFailed) for answer in answers] == [False, False, True, False]
    assert answers[3]["Y"].tolist() == [8]


def test_a_batch_that_may_not_run_again_is_not_halved() -> None:
    gpu = SmallGpu(2)
    batch = replace(batch_of(row(1), row(2), row(3)), repeatable=False)
    with pytest.raises(ModelFailed, match="a batch of 3 rows does not fit"):
        run_isolated(gpu, batch)
    assert gpu.calls == [3]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(1, 6))
def test_all_that_fits_is_answered_in_order(rows: list[int], room: int) -> None:
    requests = [row(*[float(n)] * count) for n, count in enumerate(rows)]
    if len(rows) == 1 and rows[0] > room:
        return
    answer = run_isolated(SmallGpu(room), batch_of(*requests))
    if isinstance(answer, Mapping):
        expected = [2.0 * n for n, count in enumerate(rows) for _ in range(count)]
        assert answer["Y"].tolist() == expected
        return
    for n, (count, own) in enumerate(zip(rows, answer, strict=True)):
        if count > room:
            assert isinstance(own, ModelFailed)
        else:
            assert not isinstance(own, Exception)
            assert own["Y"].tolist() == [2.0 * n] * count


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfDeviceMemory(), True),
        (OutOfMemoryError("CUDA: tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("Failed to allocate memory for requested buffer of size 64"), True),
        (MemoryError("out of memory"), False),
        (ValueError("wrong shape"), False),
    ],
)
def test_which_errors_mean_the_gpus_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_device_memory(error) is expected
