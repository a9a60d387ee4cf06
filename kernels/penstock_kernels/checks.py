"""What several operations ask of their arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np
from ml_dtypes import bfloat16

from penstock_kernels.runner import Array

Result = TypeVar("Result")

FLOAT32: Final = np.dtype(np.float32)
FLOAT16: Final = np.dtype(np.float16)
BFLOAT16: Final = np.dtype(bfloat16)
INT64: Final = np.dtype(np.int64)
FLOAT_SUFFIXES: Final = {FLOAT32: "fp32", FLOAT16: "fp16", BFLOAT16: "bf16"}
"""What kernels of such elements end in."""


def require_float32(x: Array, name: str = "x") -> None:
    """Raises TypeError for elements of another type."""
    if x.dtype != FLOAT32:
        raise TypeError(f"{name} is of {x.dtype}; expected float32")


def float_suffix(dtype: np.dtype[Any], name: str) -> str:
    """Its one of `FLOAT_SUFFIXES`. Raises TypeError for other elements."""
    if dtype not in FLOAT_SUFFIXES:
        raise TypeError(f"{name} is of {dtype}; expected {', '.join(map(str, FLOAT_SUFFIXES))}")
    return FLOAT_SUFFIXES[dtype]


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


def require_given(out: Result | None) -> Result:
    """`out`, which operations on a GPU need: who owns its memory makes it. Raises ValueError for none."""
    if out is None:
        raise ValueError("out is not given; expected memory of the GPU")
    return out


def require_numbers(dtype: np.dtype[Any], name: str) -> None:
    """Raises TypeError for elements that are not themselves in the array's memory."""
    if dtype.hasobject:
        raise TypeError(f"{name} is of {dtype}; expected elements of a fixed size")
