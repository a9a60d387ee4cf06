"""Which requests of different shapes may be joined, and what their headers' plans say of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import model_config
from penstock.backends.hidden_tensors import without
from penstock.errors import InvalidRequest
from penstock.padding_config import padding_of
from penstock.repository.signature import Signature
from penstock.repository.uneven_rules import fill_bits, uneven_rules
from penstock.types import ITEM_BYTES, NUMPY_DTYPES, InferHeader, TensorSpec
from penstock.workers.request import RequestPlan

IMAGE = {"name": "IMAGE", "data_type": "TYPE_UINT8", "dims": [-1, 3], "allow_ragged_batch": True}
TOKENS = {"name": "TOKENS", "data_type": "TYPE_INT64", "dims": [-1]}
MASK = {"name": "MASK", "data_type": "TYPE_FP32", "dims": [-1]}
EXTRA = {"name": "EXTRA", "data_type": "TYPE_FP32", "dims": [-1], "optional": True}
Y = {"name": "Y", "data_type": "TYPE_FP32", "dims": [4]}


def signature(*inputs: dict[str, Any], **texts: str) -> Signature:
    config: dict[str, Any] = {
        "name": "m",
        "max_batch_size": 8,
        "input": list(inputs),
        "output": [Y],
        "parameters": {
            f"padding.{key.replace('__', '.')}": {"string_value": text}
            for key, text in texts.items()
        },
    }
    shown = without(config, padding_of(config).masks)
    return Signature(model_config.parse(shown), uneven_rules(config))


def plan(signature: Signature, **shapes: tuple[int, ...]) -> RequestPlan:
    types = {"IMAGE": "UINT8", "TOKENS": "INT64", "MASK": "FP32", "EXTRA": "FP32"}
    specs = tuple(TensorSpec(name, types[name], shape) for name, shape in shapes.items())
    return signature.plan(InferHeader("m", "", specs))


def test_ordinary_models_have_no_rules() -> None:
    made = signature(TOKENS)
    assert plan(made, TOKENS=(1, 3)).uneven is None
    assert plan(made, TOKENS=(1, 3)).shape_key != plan(made, TOKENS=(1, 4)).shape_key


@pytest.mark.extension("ragged_batching")
def test_ragged_inputs_join_whatever_their_shape() -> None:
    made = signature(IMAGE, TOKENS)
    one = plan(made, IMAGE=(1, 5, 3), TOKENS=(1, 7))
    assert one.shape_key == plan(made, IMAGE=(2, 0, 3), TOKENS=(2, 7)).shape_key
    assert one.shape_key != plan(made, IMAGE=(1, 5, 3), TOKENS=(1, 8)).shape_key
    with pytest.raises(InvalidRequest, match="unexpected shape for input 'IMAGE'"):
        plan(made, IMAGE=(1, 5, 4), TOKENS=(1, 7))


@pytest.mark.extension("ragged_batching")
def test_requests_without_an_optional_input_never_join_those_with_it() -> None:
    made = signature(IMAGE, EXTRA)
    without_it = plan(made, IMAGE=(1, 5, 3)).shape_key
    assert without_it == plan(made, IMAGE=(1, 6, 3)).shape_key
    assert without_it != plan(made, IMAGE=(1, 5, 3), EXTRA=(1, 2)).shape_key


@pytest.mark.extension("padded_buckets")
def test_requests_of_one_bucket_join() -> None:
    made = signature(TOKENS, MASK, TOKENS__buckets="4, 8", TOKENS__mask="MASK")
    keys = [plan(made, TOKENS=(1, length)).shape_key for length in (0, 4, 5, 8, 9, 10)]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert len(set(keys)) == 4


@pytest.mark.extension("padded_buckets")
def test_a_plan_counts_the_bytes_of_padding_and_mask() -> None:
    made = signature(TOKENS, MASK, TOKENS__buckets="4, 8", TOKENS__mask="MASK")
    uneven = plan(made, TOKENS=(3, 5)).uneven
    assert uneven is not None
    assert uneven.nbytes == 3 * 8 * (8 + 4)


@pytest.mark.extension("padded_buckets")
def test_the_mask_is_no_input_for_clients() -> None:
    made = signature(TOKENS, MASK, TOKENS__buckets="4, 8", TOKENS__mask="MASK")
    with pytest.raises(InvalidRequest, match="unexpected inference input 'MASK'"):
        plan(made, TOKENS=(1, 3), MASK=(1, 3))


@pytest.mark.extension("padded_buckets")
def test_a_mask_that_clients_send_is_an_input_that_can_be_padded() -> None:
    made = signature(TOKENS, MASK, TOKENS__buckets="4, 8", MASK__buckets="4, 8")
    one = plan(made, TOKENS=(1, 3), MASK=(1, 3))
    assert one.shape_key == plan(made, TOKENS=(1, 4), MASK=(1, 4)).shape_key
    assert one.uneven is not None
    assert not one.uneven.masks


@pytest.mark.extension("padded_buckets")
def test_no_bytes_are_never_padded_to_many() -> None:
    wide = {**EXTRA, "dims": [-1, -1], "optional": False}
    made = signature(wide, EXTRA__buckets="16", EXTRA__dimension="0")
    assert plan(made, EXTRA=(1, 1, 5)).uneven is not None
    with pytest.raises(InvalidRequest) as caught:
        plan(made, EXTRA=(1, 0, 2**30))
    assert str(caught.value) == (
        "input 'EXTRA' has shape [1,0,1073741824]; dimension 1, which is padded, must have at least one"
        " element"
    )


@given(st.sampled_from([name for name, size in ITEM_BYTES.items() if size]), st.integers(0, 1))
def test_fills_are_elements_of_that_value(datatype: str, value: int) -> None:
    dtype = NUMPY_DTYPES[datatype]
    bits = np.array([fill_bits(datatype, value)], f"u{dtype.itemsize}")
    assert bits.view(dtype)[0] == np.array([value]).astype(dtype)[0]
