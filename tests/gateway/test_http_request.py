"""HTTP inference requests taken apart: what clients send."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferRequestedOutput

from http_requests import (
    FLOATS,
    decode_binary,
    decode_json,
    peer_body,
    request,
    tensor,
)
from penstock.gateway.http_request import HttpInferDecoder
from penstock.tensors import serialize_bytes
from penstock.types import Array, RequestedOutput, TensorSpec
from tensor_strategies import arrays, json_arrays, to_wire


@given(st.lists(arrays(), min_size=1, max_size=4))
def test_binary_tensors_of_tritonclient(inputs: list[tuple[str, Array]]) -> None:
    body, length = peer_body(inputs)
    decoded = HttpInferDecoder().decode("m", "1", body, length)
    assert decoded.header.inputs == tuple(
        TensorSpec(f"I{i}", datatype, array.shape) for i, (datatype, array) in enumerate(inputs)
    )
    assert [bytes(data) for data in decoded.buffers] == [to_wire(*typed) for typed in inputs]
    assert all(isinstance(data, memoryview) and data.obj is body for data in decoded.buffers)
    assert decoded.binary_data_output
    assert dict(decoded.header.parameters) == {}


@given(json_arrays)
def test_json_tensors_of_tritonclient(typed: tuple[str, Array]) -> None:
    """Any bit pattern, so NaN and the infinities too, which tritonclient writes as such."""
    body, length = peer_body([typed], binary=False)
    assert length is None
    (data,) = HttpInferDecoder().decode("m", "1", body, None).buffers
    if typed[1].dtype.kind == "f":
        np.testing.assert_array_equal(np.frombuffer(data, typed[1].dtype), typed[1].ravel())
    else:
        assert bytes(data) == to_wire(*typed)


def test_options_of_tritonclient() -> None:
    body, length = peer_body(
        [("FP32", FLOATS)],
        outputs=[
            InferRequestedOutput("A", binary_data=False),
            InferRequestedOutput("B", binary_data=True, class_count=3),
        ],
        request_id="id-1",
        sequence_id=2**64 - 1,
        sequence_start=True,
        priority=2,
        timeout=1000,
        parameters={"text": "x", "float": 1.5},
    )
    decoded = HttpInferDecoder().decode("m", "1", body, length)
    assert decoded.id == "id-1"
    assert decoded.header.outputs == (
        RequestedOutput("A", 0, False),
        RequestedOutput("B", 3, True),
    )
    assert decoded.header.parameters == {
        "sequence_id": 2**64 - 1,
        "sequence_start": True,
        "sequence_end": False,
        "priority": 2,
        "timeout": 1000,
        "text": "x",
        "float": 1.5,
    }
    assert not decoded.binary_data_output


def test_json_and_binary_inputs_mix() -> None:
    decoded = decode_binary(
        request(
            tensor(name="A", shape=[2], data=None, parameters={"binary_data_size": 8}),
            tensor(name="B"),
            tensor(
                name="C",
                datatype="BYTES",
                shape=[1],
                data=None,
                parameters={"binary_data_size": 6},
            ),
        ),
        bytes(8) + serialize_bytes([b"\xff\0"]),
    )
    assert [bytes(data) for data in decoded.buffers] == [
        bytes(8),
        FLOATS.tobytes(),
        b"\2\0\0\0\xff\0",
    ]


def test_a_raw_request_is_its_body() -> None:
    decoder = HttpInferDecoder()
    decoded = decoder.decode("m", "", b"\1\2\3", "0")
    assert decoded.raw
    assert decoded.binary_data_output
    assert decoded.header.inputs == ()
    assert [bytes(data) for data in decoded.buffers] == [b"\1\2\3"]
    assert decoder.decode("m", "", b"", "0").header is decoded.header


def test_null_is_a_key_that_is_not_there_and_unknown_keys_are_ignored() -> None:
    body = request(tensor(more=[{}]), id=None, parameters=None, outputs=None, more={"deep": [[]]})
    decoded = decode_json(body)
    assert (decoded.id, decoded.header.outputs, decoded.header.parameters) == ("", (), {})
