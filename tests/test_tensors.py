"""Tensor bytes ↔ arrays: round trips, and every way in which bytes and shape can disagree."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from penstock.errors import InvalidRequest
from penstock.tensors import (
    MAX_DIMENSIONS,
    as_array,
    count_bytes_elements,
    deserialize_bytes,
    element_count,
    expected_nbytes,
    serialize_bytes,
)
from penstock.types import Array
from tensor_strategies import arrays, to_wire


@given(arrays())
def test_bytes_become_the_array_they_came_from(typed: tuple[str, Array]) -> None:
    datatype, array = typed
    wire = to_wire(datatype, array)
    back = as_array(datatype, array.shape, memoryview(wire))
    assert back.shape == array.shape
    assert back.dtype == array.dtype
    assert to_wire(datatype, back) == wire
    assert expected_nbytes(datatype, array.shape) in (None, len(wire))


def test_numbers_are_views() -> None:
    wire = bytearray(8)
    array = as_array("FP32", (2,), wire)
    wire[0:4] = struct.pack("<f", 1.5)
    assert array.tolist() == [1.5, 0.0]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=40))
def test_bytes_are_as_tritonclient_has_them(elements: list[bytes]) -> None:
    array = np.array(elements, np.object_)
    wire = serialize_bytes(elements)
    assert wire == serialize_bytes(array) == serialize_byte_tensor(array).item()
    assert deserialize_bytes(wire, len(elements)).tolist() == elements
    assert deserialize_bytes_tensor(wire).tolist() == elements


def test_elements_that_are_not_bytes_go_as_their_text() -> None:
    assert deserialize_bytes(serialize_bytes(["é", b"\xff", 7, np.str_("x")]), 4).tolist() == [
        "é".encode(),
        b"\xff",
        b"7",
        b"x",
    ]
    with pytest.raises(UnicodeEncodeError):
        serialize_bytes(["\ud800"])


def test_bytes_are_row_major_whatever_the_array_s_order() -> None:
    array = np.asfortranarray(np.array([[b"a", b"b"], [b"c", b"d"]], np.object_))
    assert deserialize_bytes(serialize_bytes(array), 4).tolist() == [b"a", b"b", b"c", b"d"]


def test_no_elements() -> None:
    assert serialize_bytes([]) == b""
    assert deserialize_bytes(b"", 0).shape == (0,)
    with pytest.raises(InvalidRequest, match="expected 1 string elements, got 0"):
        count_bytes_elements(b"", 1)


def wire_of(*elements: bytes) -> bytes:
    return serialize_bytes(elements)


@pytest.mark.parametrize(
    ("data", "count", "says"),
    [
        (wire_of(b"a"), 2, "expected 2 string elements for inference input 'X', got 1"),
        (wire_of(b"a", b"b"), 1, "expecting 1, but 5 of 10 bytes are left"),
        (wire_of(b"a"), 0, "expecting 0, but 5 of 5 bytes are left"),
        (wire_of(b"abc")[:-1], 1, "element 0 runs 1 bytes over the end of 6 bytes"),
        (wire_of(b"a", b"bcd")[:-1], 2, "element 1 runs 1 bytes over"),
        (b"\xff\xff\xff\xff", 1, "runs 4294967295 bytes over"),
        (b"\1\0\0", 1, "expecting 4 bytes but only 3 bytes available"),
        (wire_of(b"a") + b"\0", 2, "expecting 4 bytes but only 1 bytes available"),
        (wire_of(*[b"ab"] * 20)[:-6], 20, "expected 20 string elements .* got 19"),
        (wire_of(*[b"ab"] * 19, b"a") + b"x", 20, "expecting 20, but 1 of 120 bytes are left"),
        (bytes(64), 20, "expected 20 string elements .* got 16"),
    ],
)
def test_lengths_that_do_not_fit(data: bytes, count: int, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        count_bytes_elements(memoryview(data), count, "X")
    with pytest.raises(InvalidRequest):
        deserialize_bytes(data, count)


@given(st.binary(max_size=120), st.integers(0, 40))
def test_counting_agrees_with_a_plain_walk(data: bytes, count: int) -> None:
    position, found = 0, 0
    while position + 4 <= len(data):
        position += 4 + int.from_bytes(data[position : position + 4], "little")
        found += 1
    valid = position == len(data) and found == count
    try:
        count_bytes_elements(data, count)
    except InvalidRequest:
        assert not valid
    else:
        assert valid


@given(st.lists(st.sampled_from([b"ab", b"cd", b"c"]), min_size=16, max_size=40))
def test_uniform_and_other_lengths_both_count(elements: list[bytes]) -> None:
    count_bytes_elements(wire_of(*elements), len(elements))


@pytest.mark.parametrize(
    ("shape", "count"), [((), 1), ((3,), 3), ((2, 0, 5), 0), ((2**40, 2**40, 0), 0)]
)
def test_elements_are_counted(shape: tuple[int, ...], count: int) -> None:
    assert element_count(shape) == count


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((2, -1), "negative"),
        ((-1, -1), "negative"),
        ((-(2**63), 0), "negative"),
        ((2**32, 2**31), "too many elements"),
        ((1,) * (MAX_DIMENSIONS + 1), "33 dimensions, expected 32 at most"),
        ((2**62,) * 1_000_000, "1000000 dimensions"),
    ],
)
def test_shapes_that_can_not_be(shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        element_count(shape)


def test_the_largest_shape() -> None:
    assert element_count((2**63 - 1,)) == 2**63 - 1
    assert expected_nbytes("FP64", (2**60,)) == 2**63


def test_unknown_datatypes_are_told_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"'FLOAT', expected one of BOOL, .*BYTES"):
        as_array("FLOAT", (1,), b"")


@pytest.mark.parametrize("size", [0, 7, 9, 16])
def test_bytes_that_do_not_fit_the_shape(size: int) -> None:
    with pytest.raises(InvalidRequest, match=f"Expected 8, got {size}"):
        as_array("INT32", (2,), bytes(size))
