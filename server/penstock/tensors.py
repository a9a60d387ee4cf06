"""Tensor bytes ↔ arrays, and the checks that shape, datatype and bytes agree."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from struct import Struct
from typing import Any, Final, NoReturn

import numpy as np

from penstock.errors import InvalidRequest
from penstock.types import ITEM_BYTES, NUMPY_DTYPES, Array, Buffer

MAX_DIMENSIONS: Final = 32
"""Most dimensions a shape may have: what every supported NumPy can hold."""

MAX_ELEMENTS: Final = 2**63 - 1
"""Most elements a shape may stand for."""

_LENGTH_BYTES: Final = 4
_LENGTH: Final = Struct("<I")
_UNIFORM_FROM: Final = 16
"""From this many BYTES elements on, looking whether all have one length pays."""


def element_count(shape: Sequence[int]) -> int:
    """Number of elements of a tensor of that shape; 1 for a scalar's `()`.

    Raises InvalidRequest on negative dimensions, over 32 dimensions, and over 2**63 - 1 elements.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidRequest(
            f"shape has {len(shape)} dimensions, expected {MAX_DIMENSIONS} at most"
        )
    if shape and min(shape) < 0:
        raise InvalidRequest(f"shape {list(shape)} has a negative dimension")
    count = prod(shape)
    if count > MAX_ELEMENTS:
        raise InvalidRequest(f"shape {list(shape)} has too many elements, over 2**63 - 1")
    return count


def expected_nbytes(datatype: str, shape: Sequence[int]) -> int | None:
    """Bytes that a tensor takes; None for BYTES, whose elements vary.

    Raises InvalidRequest on a datatype that is not known, and where `element_count` does.
    """
    item_bytes = ITEM_BYTES.get(datatype)
    if item_bytes is None:
        raise InvalidRequest(
            f"invalid datatype '{datatype}', expected one of {', '.join(ITEM_BYTES)}"
        )
    count = element_count(shape)
    return count * item_bytes if item_bytes else None


def as_array(datatype: str, shape: Sequence[int], data: Buffer) -> Array:
    """The tensor as an array of `shape`: a view of `data`; for BYTES an object array of `bytes`.

    Raises InvalidRequest where bytes, shape and datatype do not fit together.
    """
    expected = expected_nbytes(datatype, shape)
    if expected is None:
        return deserialize_bytes(data, element_count(shape)).reshape(shape)
    if len(data) != expected:
        raise InvalidRequest(
            f"byte size mismatch for {datatype} of shape {list(shape)}."
            f" Expected {expected}, got {len(data)}"
        )
    return np.frombuffer(data, NUMPY_DTYPES[datatype]).reshape(shape)


def serialize_bytes(elements: Array | Sequence[Any]) -> bytes:
    """Wire form of a BYTES tensor: `<u32 length><bytes>` an element, row-major.

    Elements are `bytes`, or `str` (sent as UTF-8); others are sent as their `str()`, as in Triton.
    Raises UnicodeEncodeError on a `str` that is not valid Unicode.
    """
    flat = elements.ravel().tolist() if isinstance(elements, np.ndarray) else elements
    if not {bytes}.issuperset(map(type, flat)):
        flat = [item if isinstance(item, bytes) else str(item).encode() for item in flat]
    parts = [b""] * (2 * len(flat))
    parts[::2] = map(_LENGTH.pack, map(len, flat))
    parts[1::2] = flat
    return b"".join(parts)


def deserialize_bytes(data: Buffer, count: int) -> Array:
    """The `count` elements of a serialized BYTES tensor, as an object array of `bytes` of shape [count].

    Raises InvalidRequest when a length runs over the end or there are not exactly `count` elements.
    """
    count_bytes_elements(data, count)
    array = np.empty(count, np.object_)
    if count == 1:
        array[0] = bytes(memoryview(data)[_LENGTH_BYTES:])
    else:
        array[:] = _split(bytes(data))
    return array


def _split(data: bytes) -> list[bytes]:
    """The elements of serialized BYTES that `count_bytes_elements` has passed."""
    unpack, end, elements, position = _LENGTH.unpack_from, len(data), [], 0
    while position < end:
        first = position + _LENGTH_BYTES
        position = first + unpack(data, position)[0]
        elements.append(data[first:position])
    return elements


def count_bytes_elements(data: Buffer, expected_count: int, name: str = "") -> None:
    """Check that a serialized BYTES tensor has exactly that many elements, without making objects of them.

    `name` is the tensor's, for the message. Raises InvalidRequest when a length runs over the end or the count differs.
    """
    end = len(data)
    if expected_count == 1:
        if end >= _LENGTH_BYTES and _LENGTH.unpack_from(data)[0] == end - _LENGTH_BYTES:
            return
    elif expected_count >= _UNIFORM_FROM and _is_uniform(data, expected_count):
        return
    _walk(data, expected_count, name)


def _is_uniform(data: Buffer, count: int) -> bool:
    """Whether these are `count` elements that all have one length."""
    stride, rest = divmod(len(data), count)
    if rest or stride < _LENGTH_BYTES:
        return False
    lengths = np.frombuffer(data, np.uint8).reshape(count, stride)[:, :_LENGTH_BYTES]
    length = _LENGTH.pack(stride - _LENGTH_BYTES)
    return bool((lengths == np.frombuffer(length, np.uint8)).all())


def _walk(data: Buffer, expected_count: int, name: str) -> None:
    """Go from length to length; stops at the first that is wrong, and at `expected_count`."""
    unpack, end, position, count = _LENGTH.unpack_from, len(data), 0, 0
    last_length = end - _LENGTH_BYTES
    while position <= last_length and count < expected_count:
        position += _LENGTH_BYTES + unpack(data, position)[0]
        count += 1
    if position != end or count != expected_count:
        _raise_count(data, position, count, expected_count, name)


def _raise_count(data: Buffer, position: int, count: int, expected: int, name: str) -> NoReturn:
    """Say what `_walk` stumbled over. `position` is where it stopped."""
    of_input = f" for inference input '{name}'" if name else ""
    end = len(data)
    if position > end:
        raise InvalidRequest(
            f"incomplete string data{of_input}, element {count - 1} runs"
            f" {position - end} bytes over the end of {end} bytes"
        )
    if count == expected:
        raise InvalidRequest(
            f"unexpected number of string elements{of_input}, expecting {expected},"
            f" but {end - position} of {end} bytes are left after them"
        )
    if position < end:
        raise InvalidRequest(
            f"incomplete string length{of_input}, expecting {_LENGTH_BYTES} bytes"
            f" but only {end - position} bytes available"
        )
    raise InvalidRequest(f"expected {expected} string elements{of_input}, got {count}")
