"""Probabilities of rows of scores, and the best of them. FP32, along the last axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from penstock_kernels.checks import FLOAT32, INT64, require_float32, require_given, require_out
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Array, Runner, contiguous

if TYPE_CHECKING:
    from penstock_kernels.cuda.runner import Cuda

GPU_MAX_K: Final = 512
"""What fits twice into the part of shared memory that the CUDA source takes."""
GPU_MAX_COLUMNS: Final = 2**32 - 1
"""The CUDA source keeps a rank and an index in one number."""
_WARP_COLUMNS: Final = 1024
"""A row up to this long has a warp to itself on a GPU, a longer one a block."""


def softmax(x: Array, on: Runner, out: Array | None = None) -> Array:
    """exp(x) / sum(exp(x)) of each row. NaN throughout for a row with NaN or +inf, and for one of -inf only."""
    return _normalised(x, on, out, logarithm=False)


def log_softmax(x: Array, on: Runner, out: Array | None = None) -> Array:
    """The logarithm of `softmax`, with all its digits where that is near 0."""
    return _normalised(x, on, out, logarithm=True)


def top_k(
    x: Array, k: int, on: Runner, out: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Each row's `k` largest elements in descending order, and their indices (int64).

    Equal ones are in order of index, as 0.0 and -0.0 are; NaN come last. So NumPy orders `argsort(-x, kind="stable")`.
    On a GPU, k is at most `GPU_MAX_K`. Raises ValueError for a k that a row hasn't.
    """
    return _best(x, k, on, out, probabilities=False)


def softmax_top_k(
    x: Array, k: int, on: Runner, out: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Softmax's values at the indices of `top_k(x)`, and these, without the rest of softmax ever being written."""
    return _best(x, k, on, out, probabilities=True)


def _normalised(x: Array, on: Runner, out: Array | None, logarithm: bool) -> Array:
    if not isinstance(on, Cpu):
        return _normalised_on_gpu(x, on, out, logarithm)
    from penstock_kernels.cpu import softmax as twin

    require_float32(x)
    rows, columns = _rows(x.shape)
    x = contiguous(x)
    result = np.empty_like(x) if out is None else require_out(out, x.shape, FLOAT32)
    if x.size:
        function = twin.log_softmax if logarithm else twin.softmax
        read, written = x.reshape(rows, columns), result.reshape(rows, columns)
        on.split(rows, 2 * x.nbytes, lambda b, e: function(read, written, b, e))
    return result


def _best(
    x: Array, k: int, on: Runner, out: tuple[Array, Array] | None, probabilities: bool
) -> tuple[Array, Array]:
    if not isinstance(on, Cpu):
        return _best_on_gpu(x, k, on, out, probabilities)
    from penstock_kernels.cpu import top_k as twin

    require_float32(x)
    rows, columns = _rows(x.shape)
    _require_k(k, columns)
    shape = (*x.shape[:-1], k)
    if out is None:
        out = np.empty(shape, np.float32), np.empty(shape, np.int64)
    values = require_out(out[0], shape, FLOAT32, "out[0]")
    indices = require_out(out[1], shape, INT64, "out[1]")
    if rows and k:
        function = twin.softmax_top_k if probabilities else twin.top_k
        read = contiguous(x).reshape(rows, columns)
        best, where = values.reshape(rows, k), indices.reshape(rows, k)
        on.split(rows, x.nbytes, lambda b, e: function(read, best, where, b, e))
    return values, indices


def _normalised_on_gpu(x: Array, on: Cuda, out: Array | None, logarithm: bool) -> Array:
    from penstock_kernels.cuda.arrays import checked_pointer, view_of

    out, shape = require_given(out), view_of(x).shape
    rows, columns = _rows(shape)
    read = checked_pointer(x, FLOAT32, "x")
    written = checked_pointer(out, FLOAT32, "out", shape)
    name = "log_softmax_f32" if logarithm else "softmax_f32"
    long = columns > _WARP_COLUMNS
    blocks = rows if long else -(-rows // 8)
    arguments = (read, written, np.int64(rows), np.int64(columns))
    on.run("softmax", name if long else f"{name}_warp", _grid(blocks, columns), *arguments)
    return out


def _best_on_gpu(
    x: Array, k: int, on: Cuda, out: tuple[Array, Array] | None, probabilities: bool
) -> tuple[Array, Array]:
    from penstock_kernels.cuda.arrays import checked_pointer, view_of

    out, shape = require_given(out), view_of(x).shape
    rows, columns = _rows(shape)
    _require_k(k, min(columns, GPU_MAX_K))
    if columns > GPU_MAX_COLUMNS:
        raise ValueError(f"x has {columns} columns; expected {GPU_MAX_COLUMNS} at most on a GPU")
    kernel = "softmax_top_k_f32" if probabilities else "top_k_f32"
    arguments = (
        checked_pointer(x, FLOAT32, "x"),
        checked_pointer(out[0], FLOAT32, "out[0]", (*shape[:-1], k)),
        checked_pointer(out[1], INT64, "out[1]", (*shape[:-1], k)),
    )
    sizes = (np.int64(rows), np.int64(columns), np.int32(k))
    on.run("softmax", kernel, _grid(rows, k), *arguments, *sizes)
    return out


def _rows(shape: Sequence[int]) -> tuple[int, int]:
    if not shape:
        raise ValueError("x has shape []; expected [..., columns]")
    return math.prod(shape[:-1]), shape[-1]


def _require_k(k: int, most: int) -> None:
    if not 0 <= k <= most:
        raise ValueError(f"k is {k}; expected 0 up to {most}")


def _grid(blocks: int, elements: int) -> int:
    """A launch's grid: its blocks go on to further rows themselves. None where there is nothing to write."""
    return min(blocks, 65535) if elements else 0
