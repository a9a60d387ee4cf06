"""Batch inputs against references made by hand, and the ways in which a ragged batch is taken apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_files import each
from penstock.backends.base import Batch, Outputs, RequestInfo
from penstock.backends.isolation import one_by_one, run_isolated
from penstock.backends.ragged import BatchInputs, joined_rows, request_inputs
from penstock.backends.reshape import with_reshapes
from penstock.backends.triton_requests import ModelIdentity, requests_of
from penstock.errors import ModelFailed
from penstock.model_config import ConfigDict
from penstock.types import Array, Uneven

pytestmark = pytest.mark.extension("ragged_batching")

Shape = tuple[int, ...]
KINDS = (
    "BATCH_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
    "BATCH_ITEM_SHAPE",
    "BATCH_ITEM_SHAPE_FLATTEN",
)


def ragged(*shapes: Shape, **others: Array) -> Batch:
    """A batch of requests with these shapes of X, whose elements are counted through."""
    counts = [int(np.prod(shape)) for shape in shapes]
    x = np.arange(sum(counts), dtype=np.float32)
    requests = [RequestInfo(shape[0], id=str(i)) for i, shape in enumerate(shapes)]
    return Batch({"X": x, **others}, requests, uneven=Uneven({"X": shapes}, {}))


def made(kind: str, batch: Batch, data_type: str = "TYPE_INT32", source: str = "X") -> Array:
    """The batch input of that kind."""
    given: dict[str, Any] = {
        "kind": kind,
        "target_name": ["B"],
        "data_type": data_type,
        "source_input": [source],
    }
    return BatchInputs({"name": "m", "batch_input": [given]}).added(batch)["B"]


def reference(kind: str, shapes: list[Shape]) -> Array:
    """What the kind is said to hold, element by element."""
    counts = []
    for shape in shapes:
        count = 1
        for size in shape:
            count *= size
        counts.append(count)
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    items = [shape[1:] for shape in shapes for _ in range(shape[0])]
    rank = len(shapes[0]) - 1
    values: dict[str, Any] = {
        "BATCH_ELEMENT_COUNT": counts,
        "BATCH_ACCUMULATED_ELEMENT_COUNT": ends,
        "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": [0, *ends],
        "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": [0] * max(counts),
        "BATCH_ITEM_SHAPE": np.array(items).reshape(len(items), rank),
        "BATCH_ITEM_SHAPE_FLATTEN": [size for item in items for size in item],
    }
    return np.array(values[kind])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("BATCH_ELEMENT_COUNT", [6, 4]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT", [6, 10]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", [0, 6, 10]),
        ("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", [0] * 6),
        ("BATCH_ITEM_SHAPE", [[3, 1], [3, 1], [2, 2]]),
        ("BATCH_ITEM_SHAPE_FLATTEN", [3, 1, 3, 1, 2, 2]),
    ],
)
def test_the_example_of_tritons_documentation(kind: str, expected: list[Any]) -> None:
    """A request of two rows with dims [3, 1], and one of a row with dims [2, 2]."""
    for data_type, dtype in (("TYPE_INT32", np.int32), ("TYPE_FP32", np.float32)):
        array = made(kind, ragged((2, 3, 1), (1, 2, 2)), data_type)
        np.testing.assert_array_equal(array, np.array(expected, dtype), strict=True)


@given(
    st.sampled_from(KINDS),
    st.integers(0, 3).flatmap(
        lambda rank: st.lists(
            st.tuples(st.integers(1, 4), *([st.integers(0, 5)] * rank)), min_size=1, max_size=6
        )
    ),
)
def test_each_kind_is_as_its_reference(kind: str, shapes: list[Shape]) -> None:
    array = made(kind, ragged(*shapes))
    np.testing.assert_array_equal(array, reference(kind, shapes).astype(np.int32), strict=True)


def test_the_source_may_be_an_input_that_is_not_ragged() -> None:
    batch = ragged((2, 3), (1, 5), EVEN=np.zeros((3, 7), np.float32))
    assert made("BATCH_ELEMENT_COUNT", batch, source="EVEN").tolist() == [14, 7]
    assert made("BATCH_ITEM_SHAPE", batch, source="EVEN").tolist() == [[7], [7], [7]]


def test_a_size_that_no_batch_input_can_tell_is_an_error() -> None:
    with pytest.raises(ModelFailed, match="input 'X': a batch input can't tell of 4294967296"):
        made("BATCH_ITEM_SHAPE", ragged((1, 0, 2**32)))


def test_several_targets_get_the_same() -> None:
    given = {
        "kind": "BATCH_ELEMENT_COUNT",
        "target_name": ["A", "B"],
        "data_type": "TYPE_INT32",
        "source_input": ["X"],
    }
    inputs = BatchInputs({"name": "m", "batch_input": [given]}).added(ragged((1, 3), (1, 4)))
    assert inputs["A"].tolist() == inputs["B"].tolist() == [3, 4]
    assert list(inputs) == ["X", "A", "B"]


def test_each_request_gets_its_own_shape_back() -> None:
    batch = ragged((2, 3), (1, 0), (1, 4), EVEN=np.arange(8).reshape(4, 2))
    own = list(request_inputs(batch))
    assert [inputs["X"].shape for inputs in own] == [(2, 3), (1, 0), (1, 4)]
    assert [inputs["X"].ravel().tolist() for inputs in own] == [
        [0, 1, 2, 3, 4, 5],
        [],
        [6, 7, 8, 9],
    ]
    assert [inputs["EVEN"].tolist() for inputs in own] == [[[0, 1], [2, 3]], [[4, 5]], [[6, 7]]]


def test_tritons_class_sees_requests_as_they_were_sent() -> None:
    batch = ragged((2, 3), (1, 4))
    requests = requests_of(batch, ModelIdentity("m", 1, ("Y",)))
    assert [request.request_id() for request in requests] == ["0", "1"]
    assert [request.inputs()[0].as_numpy().shape for request in requests] == [(2, 3), (1, 4)]
    assert np.shares_memory(requests[1].inputs()[0].as_numpy(), batch.inputs["X"])


def test_a_batch_of_one_is_ragged_too() -> None:
    (own,) = requests_of(ragged((2, 3)), ModelIdentity("m", 1, ("Y",)))
    assert own.inputs()[0].as_numpy().shape == (2, 3)


def test_requests_run_alone_get_batch_inputs_of_their_own() -> None:
    """The second one makes the model fail: the others are answered."""
    given = {
        "kind": "BATCH_ACCUMULATED_ELEMENT_COUNT",
        "target_name": ["ENDS"],
        "data_type": "TYPE_INT32",
        "source_input": ["X"],
    }
    inputs = BatchInputs({"name": "m", "batch_input": [given]})

    def run(batch: Batch) -> Outputs:
        feeds = inputs.added(batch)
        if 3 in feeds["X"]:
            raise ValueError("three")
        return {"Y": feeds["ENDS"], "Z": feeds["X"]}

    first, second, third = each(run_isolated(run, ragged((1, 3), (1, 2), (2, 2))))
    assert first["Y"].tolist() == [3]
    assert first["Z"].tolist() == [0, 1, 2]
    assert isinstance(second, ModelFailed)
    assert third["Y"].tolist() == [4]
    assert third["Z"].tolist() == [5, 6, 7, 8]


def test_alone_keeps_inputs_that_are_not_ragged() -> None:
    batch = ragged((1, 3), (2, 1), EVEN=np.arange(3).reshape(3, 1))
    parts = list(one_by_one(batch))
    assert [part.inputs["EVEN"].tolist() for part in parts] == [[[0]], [[1], [2]]]
    assert [part.inputs["X"].tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    assert [part.uneven for part in parts] == [
        Uneven({"X": ((1, 3),)}, {}),
        Uneven({"X": ((2, 1),)}, {}),
    ]


def test_rows_of_a_warm_up_are_joined_as_requests_are() -> None:
    row = {"X": np.array([1, 2, 3]), "EVEN": np.array([7])}
    batch = joined_rows(row, frozenset(["X"]), [RequestInfo(1), RequestInfo(1)])
    assert batch.inputs["X"].tolist() == [1, 2, 3, 1, 2, 3]
    assert batch.inputs["EVEN"].tolist() == [[7], [7]]
    assert batch.uneven == Uneven({"X": ((1, 3), (1, 3))}, {})


def test_reshapes_leave_the_rest_of_a_batch_as_it_is() -> None:
    """Else a ragged input beside a reshaped one would not be known as such, nor a stateful model as that."""

    class Keeping:
        config: ConfigDict = {  # noqa: RUF012 - as the backends have it
            "max_batch_size": 8,
            "input": [{"name": "EVEN", "dims": [2], "reshape": {"shape": [2, 1]}}],
        }
        seen: Batch | None = None

        def execute(self, batch: Batch) -> Outputs:
            self.seen = batch
            return {}

        def close(self) -> None:
            """Nothing to give back."""

    inner = Keeping()
    batch = replace(ragged((2, 3), (1, 5), EVEN=np.zeros((3, 2))), repeatable=False)
    with_reshapes(inner).execute(batch)
    assert inner.seen is not None
    assert inner.seen.inputs["EVEN"].shape == (3, 2, 1)
    assert inner.seen.uneven == batch.uneven
    assert not inner.seen.repeatable
