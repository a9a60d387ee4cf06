"""BYTES tensors as the rest of Penstock knows them: object arrays of `bytes`."""

from __future__ import annotations

import numpy as np

from penstock.types import Array


def is_text(array: Array) -> bool:
    """Whether an array's dtype (object, `S` or `U`) is one that may stand for BYTES."""
    return array.dtype.kind in "OSU"


def to_byte_array(array: Array) -> Array:
    """An object array of `bytes` from one of objects, `S` or `U`. As in Triton, what is not bytes is told by `str`."""
    elements = array.reshape(-1).tolist()
    if array.dtype.kind == "O" and all(type(element) is bytes for element in elements):
        return array
    encoded = np.empty(len(elements), dtype=np.object_)
    for index, element in enumerate(elements):
        encoded[index] = element if isinstance(element, bytes) else str(element).encode()
    return encoded.reshape(array.shape)
