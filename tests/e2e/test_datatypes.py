"""All datatypes go in and come out unchanged, over both protocols, through Python and ONNX models."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from grpc_calls import infer, infer_request
from model_files import ONNX_TYPES
from penstock.types import NUMPY_DTYPES, Array
from served import Served, json_tensor

pytestmark = pytest.mark.e2e

VALUES: Final[dict[str, list[Any]]] = {
    "BOOL": [True, False, True],
    "BYTES": [b"", "grüße".encode(), b"\x00\xff" * 40],
    "FP16": [-1.5, 65504.0, np.nan],
    "BF16": [-1.5, 3.0, 1024.0],
    "FP32": [-1.5, np.inf, np.nan],
    "FP64": [-1.5, 1e300, np.nan],
}
DATATYPES: Final = list(ONNX_TYPES)
NOT_IN_JSON: Final = ("FP16", "BF16")
CONTENTS: Final = {
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
}


def values(datatype: str) -> Array:
    """Two rows of the datatype's extremes."""
    dtype = NUMPY_DTYPES[datatype]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([[limits.min, 0, limits.max]] * 2, dtype)
    row: list[Any] = VALUES[datatype]
    return np.array([row, row[::-1]], dtype)


def same(left: Array | None, right: Array) -> bool:
    """Equal in shape and elements; NaN equals NaN."""
    assert left is not None
    if right.dtype == object:
        return bool(left.tolist() == right.tolist())
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if right.dtype.kind in "iub":
        return bool(np.array_equal(left, right))
    wide = left.astype(np.float64), right.astype(np.float64)
    return bool(np.array_equal(*wide, equal_nan=True))


def client_input(module: Any, datatype: str, array: Array, binary: bool = True) -> Any:
    """An InferInput of `tritonclient.http` or `tritonclient.grpc`."""
    tensor = module.InferInput(f"X_{datatype}", list(array.shape), datatype)
    if module is tritonclient.http:
        return tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor.set_data_from_numpy(array)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_grpc_raw(rpc: Any, datatype: str) -> None:
    array = values(datatype)
    tensor = client_input(tritonclient.grpc, datatype, array)
    result = rpc.infer("types", [tensor])
    assert same(result.as_numpy(f"Y_{datatype}"), array)
    described = result.get_output(f"Y_{datatype}")
    assert (described.datatype, list(described.shape)) == (datatype, [2, 3])


@pytest.mark.extension("binary_tensor_data")
@pytest.mark.parametrize("datatype", DATATYPES)
def test_http_binary(http: Any, datatype: str) -> None:
    array = values(datatype)
    result = http.infer("types", [client_input(tritonclient.http, datatype, array)])
    assert same(result.as_numpy(f"Y_{datatype}"), array)
    described = result.get_output(f"Y_{datatype}")
    assert (described["datatype"], described["shape"]) == (datatype, [2, 3])


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in NOT_IN_JSON])
def test_http_json(http: Any, datatype: str) -> None:
    array = values(datatype)
    if datatype == "BYTES":
        # JSON holds text only
        array = np.array([["a", "", "grüße"]], np.object_)
    tensor = client_input(tritonclient.http, datatype, array, binary=False)
    output = tritonclient.http.InferRequestedOutput(f"Y_{datatype}", binary_data=False)
    result = http.infer("types", [tensor], outputs=[output])
    given = result.as_numpy(f"Y_{datatype}")
    if datatype == "BYTES":
        assert given is not None
        assert [str(item) for item in given.ravel()] == array.ravel().tolist()
    else:
        assert same(given, array)


@pytest.mark.parametrize("datatype", NOT_IN_JSON)
def test_json_refuses_half_floats(server: Served, datatype: str) -> None:
    tensor = json_tensor(f"X_{datatype}", np.ones((1, 1), np.float32), datatype)
    answer = server.infer("types", {"inputs": [tensor]})
    assert (answer.status, answer.error) == (
        400,
        f"receiving {datatype} data via JSON is not supported."
        f" Please use the binary data format for input X_{datatype}",
    )


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in NOT_IN_JSON])
def test_grpc_contents(server: Served, channel: Any, datatype: str) -> None:
    array = values(datatype)
    request = infer_request("types", array, name=f"X_{datatype}", datatype=datatype, raw=[])
    unsigned = "uint_contents" if datatype.startswith("UINT") else "int_contents"
    getattr(request.inputs[0].contents, CONTENTS.get(datatype, unsigned)).extend(
        array.ravel().tolist()
    )
    response = infer(channel, request)
    assert not response.outputs[0].HasField("contents")
    result = tritonclient.grpc.InferResult(response)
    assert same(result.as_numpy(f"Y_{datatype}"), array)


def test_all_numbers_at_once_through_onnx(http: Any, rpc: Any) -> None:
    arrays = {name: values(name) for name in DATATYPES if name != "BYTES"}
    for client, module in ((http, tritonclient.http), (rpc, tritonclient.grpc)):
        inputs = [client_input(module, name, array) for name, array in arrays.items()]
        result = client.infer("types_onnx", inputs)
        wrong = [n for n, a in arrays.items() if not same(result.as_numpy(f"Y_{n}"), a)]
        assert not wrong


def test_strings_through_onnx(rpc: Any) -> None:
    array = np.array([[b"a", b"", "grüße".encode()]] * 2, np.object_)
    tensor = tritonclient.grpc.InferInput("X", [2, 3], "BYTES").set_data_from_numpy(array)
    result = rpc.infer("text_onnx", [tensor])
    assert same(result.as_numpy("Y"), array)


def test_onnx_strings_must_be_text(server: Served) -> None:
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": "X",
                    "datatype": "BYTES",
                    "shape": [1, 1],
                    "parameters": {"binary_data_size": 5},
                }
            ]
        }
    )
    body = header.encode() + b"\x01\x00\x00\x00\xff"
    answer = server.infer("text_onnx", body, inference_header_content_length=str(len(header)))
    assert answer.status == 500
    assert "input 'X' holds bytes that are not UTF-8" in answer.error


def test_a_tensor_without_elements(rpc: Any) -> None:
    array = np.empty((1, 0), np.float32)
    result = rpc.infer("types", [client_input(tritonclient.grpc, "FP32", array)])
    assert same(result.as_numpy("Y_FP32"), array)
