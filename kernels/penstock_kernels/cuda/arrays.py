"""Arrays in a GPU's memory, whoever made them."""

# cuda.core and cuda.bindings are compiled, and have no stubs
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from cuda.core.utils import StridedMemoryView


def view_of(array: Any) -> StridedMemoryView:
    """Its memory and shape. The caller sees to the order of streams."""
    return StridedMemoryView.from_any_interface(array, stream_ptr=-1)


def pointer(array: Any) -> int:
    """Of its first element. Raises ValueError where the elements don't lie one behind the other in C order."""
    view = view_of(array)
    if list(strides_of(array)) != _packed(view.shape) and math.prod(view.shape):
        raise ValueError(
            f"strides {list(strides_of(array))} of shape {list(view.shape)}; expected none"
        )
    return int(view.ptr)


def size_of(array: Any) -> int:
    """How many elements it has."""
    return math.prod(view_of(array).shape)


def dtype_of(array: Any) -> np.dtype[Any]:
    """BF16 is ml_dtypes' bfloat16. FP8 can't be told by DLPack: pass its bits as uint8."""
    dtype: np.dtype[Any] = np.dtype(view_of(array).dtype)
    return dtype


def strides_of(array: Any) -> Sequence[int]:
    """In elements. Those of dimensions with one element are as if all lay one behind the other."""
    view = view_of(array)
    packed = _packed(view.shape)
    given = view.strides or packed
    return [
        own if size > 1 else other
        for own, other, size in zip(given, packed, view.shape, strict=True)
    ]


def _packed(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[index + 1 :]) for index in range(len(shape))]
