"""The classification extension, against texts that a real Triton 2.51 gave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest
from penstock.gateway.classification import classify
from penstock.tensors import deserialize_bytes, element_count
from penstock.types import NUMPY_DTYPES, Array, OutputTensor

pytestmark = pytest.mark.extension("classification")

LABELS = ("zero", "one", "two")


def classes(
    datatype: str, values: object, k: int, *, labels: tuple[str, ...] = (), batched: bool = True
) -> tuple[tuple[int, ...], list[str]]:
    """Shape and texts of the classified output."""
    array = np.array(values, NUMPY_DTYPES[datatype])
    output = OutputTensor("scores", datatype, array.shape, memoryview(array.tobytes()))
    result = classify(output, k, labels, batched)
    assert (result.name, result.datatype) == ("scores", "BYTES")
    texts = deserialize_bytes(result.data, element_count(result.shape)).tolist()
    return result.shape, [text.decode() for text in texts]


def test_top_k_with_labels() -> None:
    shape, texts = classes("FP32", [[1, 4, 4, 2.123456789]], 3, labels=LABELS)
    assert shape == (1, 3)
    assert texts == ["4.000000:1:one", "4.000000:2:two", "2.123457:3"]


def test_each_item_of_a_batch_is_ranked_alone_and_k_is_cut_to_the_classes() -> None:
    shape, texts = classes("FP32", [[1, 4], [4, 2]], 9, labels=LABELS)
    assert shape == (2, 2)
    assert texts == ["4.000000:1:one", "1.000000:0:zero", "4.000000:0:zero", "2.000000:1:one"]


def test_without_a_batch_dimension_all_elements_are_ranked() -> None:
    shape, texts = classes("FP32", [[1, 4], [4, 2]], 2, batched=False)
    assert shape == (2,)
    assert texts == ["4.000000:1", "4.000000:2"]


def test_integers_have_no_decimals() -> None:
    assert classes("INT64", [[5, -4, 4]], 3, labels=LABELS)[1] == [
        "5:0:zero",
        "4:2:two",
        "-4:1:one",
    ]


@pytest.mark.parametrize("datatype", ["INT8", "INT64", "UINT8", "UINT64"])
def test_the_ends_of_a_datatype_s_range(datatype: str) -> None:
    limits = np.iinfo(NUMPY_DTYPES[datatype])
    low, high = int(limits.min), int(limits.max)
    assert classes(datatype, [[low, high, 1]], 3)[1] == [f"{high}:1", "1:2", f"{low}:0"]


def test_large_and_small_floats_print_as_in_cpp() -> None:
    assert classes("FP32", [[1e20, 1e-9]], 3)[1] == ["100000002004087734272.000000:0", "0.000000:1"]


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP64"])
def test_other_floats(datatype: str) -> None:
    assert classes(datatype, [[1.5, 2.5, -1]], 2)[1] == ["2.500000:1", "1.500000:0"]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_nan_comes_last(k: int) -> None:
    values = [[np.nan, np.inf, -np.inf, np.nan, 0.25]]
    ranked = ["inf:1", "0.250000:4", "-inf:2", "nan:0", "nan:3"]
    assert classes("FP32", values, k)[1] == ranked[:k]


def test_empty_labels_are_left_out() -> None:
    assert classes("UINT8", [[3, 2]], 2, labels=("", "b"))[1] == ["3:0", "2:1:b"]


@pytest.mark.parametrize(("shape", "result"), [((0, 3), (0, 2)), ((2, 0), (2, 0))])
def test_nothing_to_rank(shape: tuple[int, ...], result: tuple[int, ...]) -> None:
    assert classes("FP32", np.zeros(shape), 2) == (result, [])


@pytest.mark.parametrize("datatype", ["BOOL", "BYTES"])
def test_what_can_not_be_ranked(datatype: str) -> None:
    with pytest.raises(InvalidRequest, match=f"unsupported type '{datatype}'"):
        classify(OutputTensor("x", datatype, (1, 1), b"\0"), 1, (), True)


@given(
    st.lists(st.sampled_from([0.0, -1.0, 2.5, np.inf, -np.inf, np.nan]), min_size=1, max_size=30),
    st.integers(1, 31),
)
def test_ranking_agrees_with_sorting(values: list[float], k: int) -> None:
    array: Array = np.array(values)
    nan = np.flatnonzero(np.isnan(array)).tolist()
    numbers = sorted(np.flatnonzero(~np.isnan(array)).tolist(), key=lambda i: (-values[i], i))
    ranked = [*numbers, *nan]
    indices = [int(text.split(":")[1]) for text in classes("FP64", [values], k)[1]]
    assert indices == ranked[:k]
