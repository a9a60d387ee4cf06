"""HTTP inference responses, read by tritonclient."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient

from penstock.errors import InvalidRequest
from penstock.gateway.http_response import encode_http_infer
from penstock.gateway.json_tensors import BINARY_ONLY
from penstock.tensors import serialize_bytes
from penstock.types import Array, InferResponse, OutputTensor, Parameter, RequestedOutput
from tensor_strategies import arrays, json_arrays, to_wire


def output(name: str, datatype: str, array: Array) -> OutputTensor:
    return OutputTensor(name, datatype, array.shape, memoryview(to_wire(datatype, array)))


def response(
    *outputs: OutputTensor, request_id: str = "", parameters: dict[str, Parameter] | None = None
) -> InferResponse:
    return InferResponse("m", "2", request_id, outputs, parameters or {})


def numbers(name: str, *values: float) -> OutputTensor:
    return output(name, "FP32", np.array([values], np.float32))


def read(body: bytes, length: int | None) -> dict[str, Array]:
    """All outputs, as tritonclient has them."""
    result = InferenceServerClient.parse_response_body(body, header_length=length)
    arrays_of = {}
    for described in result.get_response()["outputs"]:
        array = result.as_numpy(described["name"])
        assert array is not None
        arrays_of[described["name"]] = array
    return arrays_of


def read_json(*outputs: OutputTensor) -> list[Any]:
    """Each output's `data`, as Python's own parser reads it."""
    body, length = encode_http_infer(response(*outputs), (), False)
    assert length is None
    return [output["data"] for output in json.loads(body)["outputs"]]


@given(st.lists(arrays(), min_size=1, max_size=4))
def test_tritonclient_reads_binary_outputs(typed: list[tuple[str, Array]]) -> None:
    outputs = [output(f"O{i}", *pair) for i, pair in enumerate(typed)]
    body, length = encode_http_infer(response(*outputs), (), True)
    result = read(body, length)
    for index, (datatype, array) in enumerate(typed):
        back = result[f"O{index}"]
        assert back.shape == array.shape
        assert to_wire(datatype, back) == to_wire(datatype, array)


@given(json_arrays)
def test_tritonclient_reads_json_outputs(typed: tuple[str, Array]) -> None:
    """Any bit pattern: NaN and the infinities are written as Triton does."""
    datatype, array = typed
    body, length = encode_http_infer(response(output("O", datatype, array)), (), False)
    assert length is None
    back = read(body, None)["O"]
    assert back.shape == array.shape
    if datatype == "BYTES":
        assert [item.encode() for item in back.ravel()] == array.ravel().tolist()
    else:
        np.testing.assert_array_equal(back, array)


def test_the_json_is_triton_s() -> None:
    body, _ = encode_http_infer(response(numbers("Y", 0.1, 2), request_id="x"), (), False)
    assert body == (
        b'{"id":"x","model_name":"m","model_version":"2","outputs":[{"name":"Y",'
        b'"datatype":"FP32","shape":[1,2],"data":[0.10000000149011612,2.0]}]}'
    )


def test_the_binary_form_is_triton_s() -> None:
    body, length = encode_http_infer(response(numbers("Y", 1)), (), True)
    header = (
        b'{"model_name":"m","model_version":"2","outputs":[{"name":"Y",'
        b'"datatype":"FP32","shape":[1,1],"parameters":{"binary_data_size":4}}]}'
    )
    assert (body, length) == (header + b"\0\0\x80?", len(header))


def test_parameters_are_written() -> None:
    sent: dict[str, Parameter] = {"a": True, "b": 2**64 - 1, "c": "x", "d": 0.5}
    body, _ = encode_http_infer(response(parameters=sent), (), False)
    assert json.loads(body)["parameters"] == sent


def test_outputs_are_selected_and_each_has_its_form() -> None:
    given_outputs = response(numbers("A", 1), numbers("B", 2), numbers("C", 3), numbers("D", 4))
    requested = (
        RequestedOutput("D"),
        RequestedOutput("A", binary=True),
        RequestedOutput("C", binary=False),
    )
    body, length = encode_http_infer(given_outputs, requested, True)
    described = {output["name"]: output for output in json.loads(body[:length])["outputs"]}
    assert {name: array.item() for name, array in read(body, length).items()} == {
        "A": 1,
        "C": 3,
        "D": 4,
    }
    assert ["data" in described[name] for name in "ACD"] == [False, True, False]


def test_an_empty_binary_output_still_has_a_size() -> None:
    empty = output("Y", "FP32", np.zeros((1, 0), np.float32))
    body, length = encode_http_infer(response(empty), (), True)
    assert length == len(body)
    assert json.loads(body)["outputs"][0]["parameters"] == {"binary_data_size": 0}


def test_no_outputs() -> None:
    body, length = encode_http_infer(response(), (), True)
    assert (json.loads(body)["outputs"], length) == ([], None)


def test_integers_are_exact() -> None:
    low = output("A", "INT64", np.array([-(2**63), 2**63 - 1]))
    high = output("B", "UINT64", np.array([2**64 - 1], np.uint64))
    assert read_json(low, high) == [[-(2**63), 2**63 - 1], [2**64 - 1]]


def test_booleans_and_nested_shapes_are_flat_lists() -> None:
    assert read_json(output("A", "BOOL", np.array([[True], [False]]))) == [[True, False]]


def test_nan_and_infinity_are_written_as_triton_writes_them() -> None:
    body, _ = encode_http_infer(response(numbers("Y", np.nan, np.inf, -np.inf, 0.5)), (), False)
    assert b'"data":[NaN,Infinity,-Infinity,0.5]' in body


@pytest.mark.parametrize("datatype", sorted(BINARY_ONLY))
def test_what_json_can_not_carry(datatype: str) -> None:
    tensor = OutputTensor("Y", datatype, (1,), b"\0\0")
    says = f"sending {datatype} data via JSON is not supported.* binary data format for output Y"
    with pytest.raises(InvalidRequest, match=says):
        encode_http_infer(response(tensor), (), False)
    assert encode_http_infer(response(tensor), (), True)[0].endswith(b"\0\0")


def test_bytes_that_are_not_utf8() -> None:
    tensor = OutputTensor("Y", "BYTES", (1,), serialize_bytes([b"\xff\xfe"]))
    with pytest.raises(
        InvalidRequest, match=r"output 'Y' has bytes that are not UTF-8.*binary_data"
    ):
        encode_http_infer(response(tensor), (), False)


def test_the_body_does_not_live_in_the_slab() -> None:
    """Views of a slab are valid only during the call."""
    slab = bytearray(np.array([1, 2], np.float32).tobytes())
    tensor = OutputTensor("Y", "FP32", (2,), memoryview(slab))
    binary, length = encode_http_infer(response(tensor), (), True)
    plain, _ = encode_http_infer(response(tensor), (), False)
    slab[:] = bytes(8)
    assert np.frombuffer(binary[length:], np.float32).tolist() == [1, 2]
    assert json.loads(plain)["outputs"][0]["data"] == [1, 2]
