"""What several operations ask of their arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from penstock_kernels.runner import Array

FLOAT32: Final = np.dtype(np.float32)
INT64: Final = np.dtype(np.int64)


def require_float32(x: Array, name: str = "x") -> None:
    """Raises TypeError for elements of another type."""
    if x.dtype != FLOAT32:
        raise TypeError(f"{name} is of {x.dtype}; expected float32")


def require_dimensions(shape: Sequence[int], names: Sequence[str], name: str) -> None:
    """Raises ValueError for a shape that has not as many."""
    if len(shape) != len(names):
        raise ValueError(f"{name} has shape {list(shape)}; expected [{', '.join(names)}]")


def require_shape(shape: Sequence[int], expected: Sequence[int], name: str) -> None:
    """Raises ValueError for another one."""
    if tuple(shape) != tuple(expected):
        raise ValueError(f"{name} has shape {list(shape)}; expected {list(expected)}")


def require_out(out: Array, shape: Sequence[int], dtype: np.dtype[Any], name: str = "out") -> Array:
    """`out`, where a result of this shape and type can be written without a copy."""
    require_shape(out.shape, shape, name)
    if out.dtype != dtype:
        raise TypeError(f"{name} is of {out.dtype}; expected {dtype}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError(f"{name} can't be written; expected a writeable array in C order")
    return out


def require_numbers(dtype: np.dtype[Any], name: str) -> None:
    """Raises TypeError for elements that are not themselves in the array's memory."""
    if dtype.hasobject:
        raise TypeError(f"{name} is of {dtype}; expected elements of a fixed size")
