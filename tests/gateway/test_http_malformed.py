"""Malformed HTTP inference requests: each told what is wrong, and where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from http_requests import (
    BINARY,
    FLOATS,
    decode_binary,
    decode_json,
    request,
    tensor,
)
from penstock.errors import InvalidRequest
from penstock.gateway.http_request import HttpInferDecoder


@pytest.mark.parametrize(
    ("length", "says"),
    [
        ("", "must be a number, got ''"),
        ("abc", "must be a number"),
        ("1.5", "must be a number"),
        (" 3", "must be a number"),
        ("1_0", "must be a number"),
        ("٣", "must be a number"),
        ("--1", "must be a number"),
        ("-1", r"in range \(0, \d+\), got: -1"),
        ("-0", None),
        ("999999", r"in range \(0, \d+\), got: 999999"),
        ("9" * 10_000, r"in range \(0, \d+\), got: 9{100}$"),
        ("5", "failed to parse the request JSON buffer"),
    ],
)
def test_header_lengths(length: str, says: str | None) -> None:
    body = json.dumps(request(tensor(data=None, parameters=BINARY))).encode() + FLOATS.tobytes()
    decoder = HttpInferDecoder()
    if says is None:
        assert decoder.decode("m", "", body, length).raw
        return
    with pytest.raises(InvalidRequest, match=says):
        decoder.decode("m", "", body, length)


@pytest.mark.parametrize(
    ("binary", "says"),
    [
        (b"", "unexpected size for input 'A', expecting 8 additional bytes for model 'm'"),
        (bytes(7), "unexpected size for input 'A', expecting 1 additional bytes"),
        (bytes(8), "unexpected size for input 'B', expecting 16 additional bytes"),
        (bytes(23), "unexpected size for input 'B', expecting 1 additional bytes"),
        (bytes(25), "unexpected additional input data for model 'm'.* is 24, but 25 bytes"),
    ],
)
def test_binary_tensors_that_are_not_all_there(binary: bytes, says: str) -> None:
    body = request(
        tensor(name="A", shape=[2], data=None, parameters={"binary_data_size": 8}),
        tensor(name="B", data=None, parameters=BINARY),
    )
    with pytest.raises(InvalidRequest, match=says):
        decode_binary(body, binary)


def test_binary_tensors_without_a_header_length() -> None:
    with pytest.raises(InvalidRequest, match="unexpected size for input 'X'"):
        decode_json(request(tensor(data=None, parameters=BINARY)))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\3\0\0\0ab", "incomplete string data for inference input 'X'"),
        (b"\1\0\0\0a", "expected 2 string elements for inference input 'X', got 1"),
        (b"\1\0\0\0a" * 3, "unexpected number of string elements for inference input 'X'"),
    ],
)
def test_binary_strings_are_counted(data: bytes, says: str) -> None:
    parameters = {"binary_data_size": len(data)}
    item = tensor(datatype="BYTES", shape=[1, 2], data=None, parameters=parameters)
    with pytest.raises(InvalidRequest, match=says):
        decode_binary(request(item), data)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "failed to parse the request JSON buffer: Input data was truncated"),
        (b"{", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b'{"inputs":[]}x', "trailing characters"),
        (b'{"inputs":[],"id":"\xff"}', "failed to parse"),
        (b'{"id":"\xff","inputs":[]}', "'id' is not valid UTF-8"),
        (b'{"id":"a"}', "missing required field `inputs`"),
        (b'{"id":"a",{"inputs":[]}', "failed to parse"),
        (b'{"inputs":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "deeper than 100"),
        (b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b',"inputs":[]}', "deeper than 100"),
        (b"[" * 10_000, "deeper than 100"),
        (b"[]", r"Expected `object`, got `array`"),
        ({}, "missing required field `inputs`"),
        ({"inputs": {}}, r"Expected `array`, got `object` - at `\$.inputs`"),
        (request(id=3), r"Expected `str \| null`, got `int` - at `\$.id`"),
        (request(outputs=[{}]), r"missing required field `name` - at `\$.outputs\[0\]`"),
        (request(outputs=[{"name": 1}]), r"at `\$.outputs\[0\].name`"),
        (request(tensor(name=None)), r"missing required field `name` - at `\$.inputs\[0\]`"),
        (request(tensor(datatype=None)), "missing required field `datatype`"),
        (request(tensor(), tensor(shape=None)), r"field `shape` - at `\$.inputs\[1\]`"),
        (request(tensor(name=3)), r"Expected `str`, got `int` - at `\$.inputs\[0\].name`"),
        (request(tensor(shape="x")), r"at `\$.inputs\[0\].shape`"),
        (
            request(tensor(shape=[1, 4.0])),
            r"Expected `int`, got `float` - at `\$.inputs\[0\].shape",
        ),
        (request(tensor(shape=[1, -4])), r"'X': shape \[1, -4\] has a negative dimension"),
        (request(tensor(shape=[2**33, 2**33])), "'X': shape .* too many elements"),
        (request(tensor(shape=[2**100])), "'X': shape .* too many elements"),
        (request(tensor(shape=[1] * 33)), "'X': shape has 33 dimensions"),
        (request(tensor(datatype="FLOAT")), "'X': invalid datatype 'FLOAT', expected one of BOOL,"),
        (request(tensor(datatype="fp32")), "'X': invalid datatype 'fp32'"),
        (request(tensor(data=1)), r"Expected `array`, got `int` - at `\$.inputs\[0\].data`"),
        (request(tensor(data=None)), "'X' must set only one .* But no field is set"),
        (
            request(tensor(parameters=BINARY)),
            "'X' must set only one .* But set 'data' 'binary_data_size'",
        ),
        (request(tensor(data=None, parameters={"binary_data_size": "16"})), "got `str` - at"),
        (request(tensor(data=None, parameters={"binary_data_size": -16})), "Expected `int` >= 0"),
        (request(tensor(data=None, parameters={"binary_data_size": 16.5})), "got `float`"),
        (
            request(tensor(data=None, parameters={"binary_data_size": 12})),
            "byte size mismatch for input 'X' for model 'm'. Expected 16, got 12",
        ),
        (request(tensor(), tensor()), "input 'X' already exists in request"),
        (request(outputs=[{"name": "Y"}, {"name": "Y"}]), "output 'Y' already exists in request"),
        (request(outputs=[{"name": "Y", "parameters": {"classification": -1}}]), ">= 0"),
        (request(outputs=[{"name": "Y", "parameters": {"classification": "2"}}]), "got `str`"),
        (request(outputs=[{"name": "Y", "parameters": {"binary_data": 1}}]), "got `int`"),
        (request(parameters=[]), r"at `\$.parameters`"),
        (request(parameters={"a": {}}), "parameter 'a' has invalid type"),
        (request(parameters={"a": None}), "parameter 'a' has invalid type"),
        (request(parameters={"a": 2**64}), "parameter 'a' is out of range"),
        (request(parameters={"a": -(2**63) - 1}), "parameter 'a' is out of range"),
        (request(parameters={"triton_x": 1}), "starting with 'triton_' are reserved"),
        (request(parameters={"priority": "x"}), "Unable to parse 'priority': Expected `int`"),
        (request(parameters={"timeout": -1}), "Unable to parse 'timeout': Expected `int` >= 0"),
        (request(parameters={"sequence_id": 1.5}), "Unable to parse 'sequence_id'"),
        (request(parameters={"sequence_start": 1}), "Unable to parse 'sequence_start'"),
        (request(parameters={"binary_data_output": 1}), "Unable to parse 'binary_data_output'"),
    ],
)
def test_malformed_requests(body: dict[str, Any] | bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        decode_json(body)
