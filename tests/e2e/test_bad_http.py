"""Malformed HTTP requests get their status at once, with a text that says what is wrong, and the server goes on."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from served import HttpAnswer, Served, json_request, json_tensor

pytestmark = pytest.mark.e2e

FLOATS = np.array([1, 2, 3], np.float32).tobytes()
ABC = struct.pack("<I", 3) + b"abc"


@pytest.fixture(autouse=True)
def goes_on(server: Served) -> Iterator[None]:
    """Whatever came before, the next good request is answered."""
    yield
    assert server.infer("puppet", json_request(1.0)).status == 200


def tensor(**changes: Any) -> dict[str, Any]:
    """An input X, changed; keys changed to `...` are left out."""
    whole = {"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0], **changes}
    return {key: value for key, value in whole.items() if value is not ...}


def one(**changes: Any) -> dict[str, Any]:
    """A request of that input."""
    return {"inputs": [tensor(**changes)]}


@pytest.mark.parametrize(
    ("request_json", "text"),
    [
        (one(name="Q"), "unexpected inference input 'Q' for model 'puppet'"),
        ({"inputs": [tensor(), tensor()]}, "input 'X' already exists in request"),
        ({"inputs": []}, "expected 1 inputs but got 0 inputs for model 'puppet'"),
        ({}, "missing required field `inputs`"),
        (
            one(datatype="INT32", data=[1, 2]),
            "data-type is 'INT32', but model 'puppet' expects 'FP32'",
        ),
        (one(datatype="FP33"), "invalid datatype 'FP33'"),
        (
            one(shape=[2]),
            "unexpected shape for input 'X' for model 'puppet'. Expected [-1,-1], got [2]",
        ),
        (one(shape=[1, -2]), "has a negative dimension"),
        (one(shape=[2**32, 2**32]), "has too many elements"),
        (one(shape=[1, 2**63]), "has too many elements"),
        (one(shape=[1, 2**70]), "has too many elements"),
        (one(shape=[1] * 33), "shape has 33 dimensions, expected 32 at most"),
        (one(shape=[1, 1.5]), "Expected `int`, got `float`"),
        (one(shape="1,2"), "$.inputs[0].shape"),
        (one(shape=[0, 2], data=[]), "inference request batch-size must be <= 8 for 'puppet'"),
        (
            one(shape=[9, 1], data=[0.0] * 9),
            "inference request batch-size must be <= 8 for 'puppet'",
        ),
        (one(data=[1.0]), "shape [1, 2] does not match the 1 elements of its 'data' field"),
        (one(data=[1.0] * 3), "shape [1, 2] does not match the 3 elements of its 'data' field"),
        (one(data=["a", "b"]), "can't take 'data' as FP32"),
        (one(data=[[1.0], 2.0]), "'data' mixes elements and lists on one level"),
        (one(data=...), "must set only one of the following fields"),
        (one(parameters={"binary_data_size": 8}), "must set only one of the following fields"),
        (one(name=...), "missing required field `name`"),
        (one(datatype=...), "missing required field `datatype`"),
        (one(shape=...), "missing required field `shape`"),
        (
            {**one(), "outputs": [{"name": "Z"}]},
            "unexpected inference output 'Z' for model 'puppet'",
        ),
        ({**one(), "outputs": [{"name": "Y"}] * 2}, "output 'Y' already exists in request"),
        ({**one(), "outputs": [{}]}, "missing required field `name`"),
        ({**one(), "id": 7}, "$.id"),
        ({**one(), "parameters": {"a": [1]}}, "parameter 'a' has invalid type"),
        ({**one(), "parameters": {"triton_x": 1}}, "starting with 'triton_' are reserved"),
        ({**one(), "parameters": {"timeout": "soon"}}, "Unable to parse 'timeout'"),
        ({**one(), "parameters": {"priority": -1}}, "Unable to parse 'priority'"),
        ({**one(), "parameters": {"a": 2**65}}, "parameter 'a' is out of range"),
    ],
)
def test_contents(server: Served, request_json: dict[str, Any], text: str) -> None:
    answer = server.infer("puppet", request_json)
    assert answer.status == 400, answer.body
    assert text in answer.error


@pytest.mark.parametrize(
    ("datatype", "value"), [("UINT8", 256), ("INT8", -129), ("UINT64", -1), ("BOOL", 2)]
)
def test_elements_out_of_range(server: Served, datatype: str, value: int) -> None:
    bad = tensor(name=f"X_{datatype}", datatype=datatype, shape=[1, 1], data=[value])
    answer = server.infer("types", {"inputs": [bad]})
    assert answer.status == 400
    assert f"can't take 'data' as {datatype}" in answer.error


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("nobody", 404, "Request for unknown model: 'nobody' is not found"),
        ("puppet/versions/9", 404, "Request for unknown model: 'puppet' version 9 is not found"),
        ("puppet/versions/x", 400, "failed to get model version from specified version string 'x'"),
        (f"puppet/versions/{'9' * 30}", 400, "failed to get model version"),
        (f"puppet/versions/{'9' * 6000}", 400, "failed to get model version"),
        ("broken_init", 404, "Request for unknown model: 'broken_init' has no available versions"),
    ],
)
def test_model_or_version(server: Served, path: str, status: int, text: str) -> None:
    answer = server.infer(path, json_request(1.0))
    assert answer.status == status
    assert text in answer.error


def test_a_missing_input(server: Served) -> None:
    answer = server.infer("add_sub", {"inputs": [json_tensor("INPUT0", np.ones(4, np.float32))]})
    assert answer.status == 400
    assert "expected 2 inputs but got 1 inputs for model 'add_sub'" in answer.error
    assert "INPUT1" in answer.error


def test_a_shape_the_model_does_not_take(server: Served) -> None:
    five = np.ones(5, np.float32)
    inputs = [json_tensor("INPUT0", five), json_tensor("INPUT1", five)]
    answer = server.infer("add_sub", {"inputs": inputs})
    assert answer.status == 400
    assert "unexpected shape for input 'INPUT0' for model 'add_sub'. Expected [4], got [5]" in (
        answer.error
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "failed to parse the request JSON buffer"),
        (b"hello", "failed to parse the request JSON buffer"),
        (b'{"inputs": [', "failed to parse the request JSON buffer"),
        (json.dumps(one()).encode() + b"x", "failed to parse the request JSON buffer"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (
            b'{"inputs": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
            "JSON nests deeper than 100 levels",
        ),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "JSON nests deeper than 100 levels"),
        (b"[" * 100_000, "JSON nests deeper than 100 levels"),
        (b'{"id": "\xff", "inputs": []}', "not valid UTF-8"),
        (b'{"inputs": [], "parameters": {"a": "\\ud800"}}', "failed to parse the request JSON"),
        (b"\x00" * 1000, "failed to parse the request JSON buffer"),
    ],
)
def test_json(server: Served, body: bytes, text: str) -> None:
    answer = server.infer("puppet", body)
    assert answer.status == 400, answer.body
    assert text in answer.error


@pytest.mark.parametrize(
    ("length", "text"),
    [
        ("9999", "inference header size should be in range (0, "),
        ("-5", "inference header size should be in range (0, "),
        ("9" * 5000, "inference header size should be in range (0, "),
        ("abc", "Inference-Header-Content-Length must be a number, got 'abc'"),
        ("1e2", "Inference-Header-Content-Length must be a number, got '1e2'"),
        ("20", "failed to parse the request JSON buffer"),
        (None, "failed to parse the request JSON buffer"),
    ],
)
def test_header_length(server: Served, length: str | None, text: str) -> None:
    binary = tensor(data=..., shape=[1, 3], parameters={"binary_data_size": 12})
    body = json.dumps({"inputs": [binary]}).encode() + FLOATS
    headers = {} if length is None else {"inference_header_content_length": length}
    answer = server.infer("puppet", body, **headers)
    assert answer.status == 400
    assert text in answer.error


def send_binary(server: Served, model: str, data: bytes, **changes: Any) -> HttpAnswer:
    """One input's JSON, and these bytes after it."""
    header = json.dumps(one(data=..., **changes)).encode()
    return server.infer(model, header + data, inference_header_content_length=str(len(header)))


@pytest.mark.parametrize(
    ("shape", "size", "data", "text"),
    [
        ([1, 3], 12, FLOATS[:8], "unexpected size for input 'X', expecting 4 additional bytes"),
        ([1, 3], 12, FLOATS + b"x", "unexpected additional input data for model 'puppet'"),
        (
            [1, 3],
            8,
            FLOATS[:8],
            "input byte size mismatch for input 'X' for model 'puppet'. Expected 12, got 8",
        ),
        ([1, 2**61 - 1], 12, FLOATS, "input byte size mismatch for input 'X'"),
        ([1, 3], -8, FLOATS, "binary_data_size"),
        ([1, 3], "12", FLOATS, "binary_data_size"),
        ([1, 3], 2**64, FLOATS, "Expected 12, got 18446744073709551616"),
    ],
)
def test_binary_sizes(server: Served, shape: list[int], size: Any, data: bytes, text: str) -> None:
    answer = send_binary(server, "puppet", data, shape=shape, parameters={"binary_data_size": size})
    assert answer.status == 400
    assert text in answer.error


@pytest.mark.parametrize(
    ("shape", "data", "text"),
    [
        ([1, 1], struct.pack("<I", 99) + b"abc", "incomplete string data for inference input 'X'"),
        (
            [1, 1],
            struct.pack("<I", 2**32 - 1) + b"abc",
            "incomplete string data for inference input 'X'",
        ),
        ([2, 1], ABC, "expected 2 string elements for inference input 'X', got 1"),
        (
            [1, 1],
            ABC * 2,
            "unexpected number of string elements for inference input 'X', expecting 1",
        ),
        (
            [1, 1],
            b"ab",
            "incomplete string length for inference input 'X', expecting 4 bytes but only 2",
        ),
        ([1, 1], b"", "string"),
    ],
)
def test_text_lengths(server: Served, shape: list[int], data: bytes, text: str) -> None:
    answer = send_binary(
        server,
        "text",
        data,
        datatype="BYTES",
        shape=shape,
        parameters={"binary_data_size": len(data)},
    )
    assert answer.status == 400
    assert text in answer.error


@pytest.mark.parametrize(
    ("encoding", "body", "status", "text"),
    [
        ("br", b"x", 501, "Unsupported compression type 'br', expected gzip or deflate"),
        ("gzip", b"plain", 400, "the body is not valid gzip"),
        ("gzip", gzip.compress(b'{"inputs": []}')[:-9], 400, "the gzip body is truncated"),
        (
            "gzip",
            gzip.compress(b'{"inputs": []}') + b"x",
            400,
            "1 bytes follow the end of the gzip body",
        ),
        ("deflate", b"plain", 400, "the body is not valid deflate"),
        ("gzip", gzip.compress(bytes(65 << 20), 1), 413, "inflates to over 67108864 bytes"),
    ],
)
def test_compressed_bodies(
    server: Served, encoding: str, body: bytes, status: int, text: str
) -> None:
    answer = server.infer("puppet", body, content_encoding=encoding)
    assert answer.status == status
    assert text in answer.error


def test_a_model_that_fails(server: Served) -> None:
    answer = server.infer("puppet", json_request(1.0, parameters={"error": "no such user"}))
    assert (answer.status, answer.error) == (500, "no such user")
    answer = server.infer("puppet", json_request(1.0, parameters={"raise": "oh"}))
    assert answer.status == 500
    assert answer.error.startswith("Failed to process the request(s) for model instance 'puppet_0'")
    assert "ValueError: oh" in answer.error
