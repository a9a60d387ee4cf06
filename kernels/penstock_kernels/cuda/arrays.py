"""Arrays in a GPU's memory, whoever made them."""

# cuda.core and cuda.bindings are compiled, and have no stubs
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from cuda.core.utils import StridedMemoryView

from penstock_kernels.checks import require_shape


def view_of(array: Any) -> StridedMemoryView:
    """Its memory and shape. The caller sees to the order of streams."""
    return StridedMemoryView.from_any_interface(array, stream_ptr=-1)


def pointer(array: Any) -> int:
    """Of its first element. Raises ValueError where the elements don't lie one behind the other in C order."""
    view = view_of(array)
    strides = _strides(view)
    if strides != _packed(view.shape):
        raise ValueError(f"strides {strides} of shape {list(view.shape)}; expected none")
    return int(view.ptr)


def checked_pointer(
    array: Any, dtype: np.dtype[Any], name: str, shape: Sequence[int] | None = None
) -> int:
    """As `pointer`, of an array that a kernel takes for one of this type and shape (None: any): nothing else would keep
    it from reading and writing past the end. Raises TypeError and ValueError for others."""
    if shape is not None:
        require_shape(view_of(array).shape, shape, name)
    if dtype_of(array) != dtype:
        raise TypeError(f"{name} is of {dtype_of(array)}; expected {dtype}")
    return pointer(array)


def size_of(array: Any) -> int:
    """How many elements it has."""
    return math.prod(view_of(array).shape)


def dtype_of(array: Any) -> np.dtype[Any]:
    """BF16 is ml_dtypes' bfloat16. FP8 can't be told by DLPack: pass its bits as uint8."""
    dtype: np.dtype[Any] = np.dtype(view_of(array).dtype)
    return dtype


def strides_of(array: Any) -> Sequence[int]:
    """In elements. Those that no element is found by, of dimensions of one and of arrays without any, are as if all lay
    one behind the other."""
    return _strides(view_of(array))


def _strides(view: StridedMemoryView) -> list[int]:
    packed = _packed(view.shape)
    given = view.strides
    if not given or not math.prod(view.shape):
        return packed
    return [
        own if size > 1 else other
        for own, other, size in zip(given, packed, view.shape, strict=True)
    ]


def _packed(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[index + 1 :]) for index in range(len(shape))]
