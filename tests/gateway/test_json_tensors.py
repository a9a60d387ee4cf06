"""Tensors in the JSON of a request: ranges, nesting, NaN, and elements that do not fit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from http_requests import (
    FLOATS,
    decode_json,
    request,
    tensor,
)
from penstock.errors import InvalidRequest
from penstock.tensors import serialize_bytes
from penstock.types import NUMPY_DTYPES
from tensor_strategies import to_wire


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("UINT16", [0, 2**16 - 1]),
        ("UINT32", [0, 2**32 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("INT8", [-128, 127]),
        ("INT16", [-(2**15), 2**15 - 1]),
        ("INT32", [-(2**31), 2**31 - 1]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("FP32", [-1, 3.4e38]),
        ("FP64", [2**53 + 1.0, 1.7e308]),
    ],
)
def test_the_ends_of_each_range_are_exact(datatype: str, data: list[Any]) -> None:
    (buffer,) = decode_json(request(tensor(datatype=datatype, shape=[2], data=data))).buffers
    assert bytes(buffer) == to_wire(datatype, np.array(data, NUMPY_DTYPES[datatype]))


@pytest.mark.parametrize(
    "data",
    [
        [1, 2.5, -3, 4],
        [[1, 2.5, -3, 4]],
        [[1, 2.5], [-3, 4]],
        [[1, 2.5, -3], [], [4]],
        [[[[1], [2.5], [-3], [4]]]],
    ],
)
def test_nesting_is_free_as_in_triton(data: list[Any]) -> None:
    assert bytes(decode_json(request(tensor(data=data))).buffers[0]) == FLOATS.tobytes()


def test_strings_become_utf8() -> None:
    body = request(tensor(datatype="BYTES", shape=[2], data=["é\n", ""]))
    assert bytes(decode_json(body).buffers[0]) == serialize_bytes(["é\n", ""])


@pytest.mark.parametrize(
    ("datatype", "data", "says"),
    [
        (
            "FP32",
            [1, "a"],
            r"'X': can't take 'data' as FP32: Expected `float`, got `str` - at `\$\[1\]`",
        ),
        ("FP32", [1, True], "Expected `float`, got `bool`"),
        ("FP32", [None, 1], "Expected `float`, got `null`"),
        ("FP32", [1, 1e300], "overflow"),
        ("FP64", [1, 10**400], "out of range"),
        ("FP32", [1, [2]], "got `array`"),
        ("FP32", [[1], 2], "'X': 'data' mixes elements and lists"),
        ("BOOL", [1, 0], "Expected `bool`, got `int`"),
        ("INT8", [1.0, 2], "Expected `int`, got `float`"),
        ("INT8", [1, 128], "Expected `int` <= 127"),
        ("INT16", [70000, 1], "Expected `int` <= 32767"),
        ("UINT8", [-1, 1], "Expected `int` >= 0"),
        ("UINT64", [0, 2**64], "too large"),
        ("INT64", [0, 2**63], "Expected `int` <= 9223372036854775807"),
        ("INT64", [0, -(2**63) - 1], "Expected `int` >= -9223372036854775808"),
        ("BYTES", ["a", 1], "Expected `str`, got `int`"),
        ("FP16", [1, 2], "receiving FP16 data via JSON is not supported. Please use the binary"),
        ("BF16", [1, 2], "receiving BF16 data via JSON is not supported. Please use the binary"),
        ("INT32", [1], r"shape \[2\] does not match the 1 elements"),
        ("INT32", [1, 2, 3], r"shape \[2\] does not match the 3 elements"),
        ("INT32", [], r"shape \[2\] does not match the 0 elements"),
    ],
)
def test_elements_that_do_not_fit(datatype: str, data: list[Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        decode_json(request(tensor(datatype=datatype, shape=[2], data=data)))


def test_nan_and_infinity_are_read() -> None:
    text = json.dumps(request(tensor(data=[float("nan"), float("inf"), float("-inf"), 0.5])))
    values = np.frombuffer(decode_json(text.encode()).buffers[0], np.float32)
    np.testing.assert_array_equal(values, np.array([np.nan, np.inf, -np.inf, 0.5], np.float32))


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs":[],"id":"\\ud800","x":NaN}',
        b'{"inputs":[],"x":NaN,}',
        b'{"inputs":NaN}',
        b'{"inputs":[{"name":"X","datatype":"BYTES","shape":[1],"data":["\\ud800"]}],"x":NaN}',
        b'{"inputs":[],"x":NaN,"y":"\xff"}',
        b'{"inputs":[],"x":NaN,"y":' + b"9" * 5000 + b"}",
        b"NaN",
    ],
)
def test_what_is_wrong_beside_nan_is_still_found(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_json(text)
