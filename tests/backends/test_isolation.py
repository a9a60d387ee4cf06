"""A request that makes the model fail is answered alone, and its mates get their answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_files import batch_of, each, whole
from penstock.backends.base import Batch, Outputs, RequestInfo
from penstock.backends.isolation import check_rows, one_by_one, one_line, run_isolated
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
