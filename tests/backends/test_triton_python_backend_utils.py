"""The helpers of `triton_python_backend_utils`, called as models call them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.backends import triton_python_backend_utils as pb_utils
from penstock.types import NUMPY_DTYPES


@given(st.lists(st.binary()))
def test_bytes_tensor_round_trip(elements: list[bytes]) -> None:
    array = np.array([*elements, None], dtype=np.object_)[:-1]
    encoded = pb_utils.serialize_byte_tensor(array)
    assert pb_utils.deserialize_bytes_tensor(bytes(encoded)).tolist() == elements


def test_bytes_tensor_is_length_prefixed() -> None:
    array = np.array(["a", b"\xff\0"], dtype=np.object_)
    assert pb_utils.serialize_byte_tensor(array) == b"\1\0\0\0a\2\0\0\0\xff\0"
    assert pb_utils.serialize_byte_tensor(np.zeros(2)) is None


@pytest.mark.parametrize("encoded", [b"\5\0\0\0abc", b"\1\0"])
def test_bytes_tensor_over_the_end(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="runs over the end"):
        pb_utils.deserialize_bytes_tensor(encoded)


@pytest.mark.parametrize("datatype", NUMPY_DTYPES)
def test_type_names_and_numbers_agree(datatype: str) -> None:
    name = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    numpy_type = pb_utils.triton_string_to_numpy(name)
    number = pb_utils.numpy_to_triton_type(numpy_type)
    assert number is not None
    assert pb_utils.triton_to_numpy_type(number) is numpy_type
    tensor = pb_utils.Tensor("T", np.zeros((2, 1), dtype=numpy_type))
    assert tensor.triton_dtype() == number
    assert tensor.shape() == [2, 1]


def test_type_numbers_are_tritons() -> None:
    assert pb_utils.numpy_to_triton_type(np.bool_) == 1
    assert pb_utils.numpy_to_triton_type(np.float32) == 11
    assert pb_utils.numpy_to_triton_type(np.bytes_) == 13
    assert pb_utils.numpy_to_triton_type(np.complex64) is None
    assert pb_utils.triton_to_numpy_type(99) is None


def test_tensor_needs_an_array() -> None:
    with pytest.raises(TypeError, match=r"'T' needs a numpy\.ndarray, got list"):
        pb_utils.Tensor("T", [1, 2])  # type: ignore[arg-type]


@pytest.mark.parametrize("writeable", [True, False])
def test_dlpack_round_trip(writeable: bool) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    array.flags.writeable = writeable
    tensor = pb_utils.Tensor("T", array)
    for source in (tensor, tensor.to_dlpack()):
        taken = pb_utils.Tensor.from_dlpack("U", source)
        assert taken.name() == "U"
        assert taken.as_numpy().tolist() == array.tolist()
        assert np.shares_memory(taken.as_numpy(), array) == writeable


def test_dlpack_of_what_has_none() -> None:
    with pytest.raises(pb_utils.TritonModelException, match="'T' has no DLPack form"):
        pb_utils.Tensor("T", np.array([b"a"], dtype=np.object_)).to_dlpack()
    with pytest.raises(pb_utils.TritonModelException, match="'T' can't be taken over"):
        pb_utils.Tensor.from_dlpack("T", 3)


def test_by_name() -> None:
    config = {"input": [{"name": "X", "dims": [1]}], "output": [{"name": "Y"}]}
    assert pb_utils.get_input_config_by_name(config, "X") == {"name": "X", "dims": [1]}
    assert pb_utils.get_output_config_by_name(config, "X") is None
    assert pb_utils.get_input_config_by_name({}, "X") is None
    tensor = pb_utils.Tensor("Y", np.zeros(1))
    response = pb_utils.InferenceResponse(output_tensors=[tensor])
    assert pb_utils.get_output_tensor_by_name(response, "Y") is tensor
    assert pb_utils.get_output_tensor_by_name(response, "Z") is None
    assert not response.has_error()
    request = pb_utils.InferenceRequest(
        inputs=[tensor], model_name="m", flags=1, correlation_id="s"
    )
    assert pb_utils.get_input_tensor_by_name(request, "Y") is tensor
    assert (request.flags(), request.correlation_id(), request.model_name()) == (1, "s", "m")


def test_error_has_message_and_code() -> None:
    error = pb_utils.TritonError("gone", pb_utils.TritonError.NOT_FOUND)
    assert (error.message(), int(error.code())) == ("gone", 2)
    assert pb_utils.TritonError("why").code() == pb_utils.TritonError.INTERNAL
    assert pb_utils.InferenceResponse([], error).has_error()


@pytest.mark.parametrize(
    ("policy", "expected"), [({}, False), ({"decoupled": True}, True), (None, False)]
)
def test_decoupled_policy(policy: Any, expected: bool) -> None:
    config = {"model_transaction_policy": policy}
    assert pb_utils.using_decoupled_model_transaction_policy(config) is expected
    assert pb_utils.using_decoupled_model_transaction_policy({}) is False


def model_config(**fields: Any) -> pb_utils.ModelConfig:
    return pb_utils.ModelConfig(json.dumps({"name": "m", "input": [], "output": [], **fields}))


X = {"name": "X", "data_type": "TYPE_FP32", "dims": [4]}


def test_model_config_adds_and_fills() -> None:
    config = model_config(input=[{"name": "X", "data_type": "TYPE_INVALID", "dims": []}])
    config.add_input({**X, "optional": True})
    config.add_output({**X, "name": "Y"})
    config.set_model_transaction_policy({"decoupled": False})
    assert config.as_dict()["input"] == [{**X, "optional": True}]
    assert config.as_dict()["output"] == [{**X, "name": "Y"}]
    assert config.as_dict()["model_transaction_policy"] == {"decoupled": False}


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        ({"name": "X", "dims": [4]}, "missing 'data_type'"),
        ({**X, "labels": "l"}, "contains property other than"),
        (
            {**X, "data_type": "TYPE_INT8"},
            "data_type TYPE_INT8, the configuration expects TYPE_FP32",
        ),
        ({**X, "dims": [5]}, r"dims \[5\], the configuration specifies \[4\]"),
        ({**X, "optional": False}, "optional False"),
    ],
)
def test_model_config_refuses_a_contradiction(tensor: dict[str, Any], text: str) -> None:
    config = model_config(input=[{**X, "optional": True}])
    with pytest.raises(ValueError, match=text):
        config.add_input(tensor)


def test_model_config_schedulers_and_sizes() -> None:
    config = model_config(dynamic_batching={"max_queue_delay_microseconds": 5}, max_batch_size=4)
    config.set_dynamic_batching()
    assert config.as_dict()["dynamic_batching"] == {"max_queue_delay_microseconds": 5}
    with pytest.raises(ValueError, match=r"max_batch_size 4.*max_batch_size 2"):
        config.set_max_batch_size(2)
    with pytest.raises(ValueError, match="sequence_batching"):
        model_config(sequence_batching={}).set_dynamic_batching()
    with pytest.raises(ValueError, match="other than 'decoupled'"):
        config.set_model_transaction_policy({"coupled": True})
    decoupled = model_config(model_transaction_policy={"decoupled": True})
    with pytest.raises(ValueError, match="already set to 'True'"):
        decoupled.set_model_transaction_policy({"decoupled": False})
