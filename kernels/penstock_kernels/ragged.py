"""Rows of different lengths: side by side, or padded to one. Elements of any type that has 1, 2, 4 or 8 bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from penstock_kernels.checks import INT64, require_given, require_out, require_shape
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Array, Runner, contiguous

if TYPE_CHECKING:
    from penstock_kernels.cuda.runner import Cuda

_BITS: Final = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
"""Bytes an element → the type that its bits are copied as."""


def splits_of(lengths: Sequence[int] | Array) -> Array:
    """Where each row begins, and where the last one ends: [0, 2, 5] for lengths [2, 3]."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def pack(padded: Array, splits: Array, on: Runner, out: Array | None = None) -> Array:
    """padded[rows, size, ...] → [tokens, ...]: the first tokens of each row, as many as `splits` says. On a GPU nobody
    looks whether that is right: what `splits` leads out of `out` is left out."""
    if not isinstance(on, Cpu):
        return _pack_on_gpu(padded, splits, on, out)
    from penstock_kernels.cpu import ragged

    rows, size, tail = _padded_shape(padded.shape)
    splits = _checked(splits, rows, size)
    _bits(padded.dtype)
    result = _made(out, (int(splits[-1]), *tail), padded.dtype, "out")
    item = math.prod(tail) * padded.dtype.itemsize
    if result.size:
        read = contiguous(padded).reshape(-1).view(np.uint8)
        written = result.reshape(-1).view(np.uint8)
        on.split(
            rows,
            2 * result.nbytes,
            lambda b, e: ragged.pack(read, written, splits, size * item, item, b, e),
        )
    return result


def pad(
    flat: Array,
    splits: Array,
    on: Runner,
    size: int | None = None,
    fill: float = 0,
    mask_dtype: Any = np.bool_,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """flat[tokens, ...] → [rows, size, ...] with `fill` behind the end of each row, and the mask [rows, size]: 1 where
    a row has a token, 0 behind its end. Made in one pass.

    `size`: None is the longest row's length. A longer row than that is an error; on a GPU, where `out` gives size and
    types, it is cut, and what `splits` leads out of `flat` counts as behind the row's end.
    """
    if not isinstance(on, Cpu):
        return _pad_on_gpu(flat, splits, on, fill, out)
    splits = _checked(splits, len(splits) - 1, size)
    if not flat.ndim or flat.shape[0] != splits[-1]:
        raise ValueError(
            f"flat has shape {list(flat.shape)}; expected [{splits[-1]}, ...] as splits says"
        )
    if size is None:
        size = int(np.diff(splits).max(initial=0))
    shape = (len(splits) - 1, size)
    given = (None, None) if out is None else out
    padded = _made(given[0], (*shape, *flat.shape[1:]), flat.dtype, "out[0]")
    dtype = np.dtype(mask_dtype) if out is None else out[1].dtype
    mask = _made(given[1], shape, dtype, "out[1]")
    if mask.size:
        _pad_on_cpu(flat, splits, on, fill, padded, mask)
    return padded, mask


def _pad_on_cpu(
    flat: Array, splits: Array, on: Cpu, fill: float, padded: Array, mask: Array
) -> None:
    from penstock_kernels.cpu import ragged

    rows, size = mask.shape
    width = math.prod(flat.shape[1:])
    elements = padded.reshape(-1).view(_bits(flat.dtype))
    inside = mask.reshape(-1).view(_bits(mask.dtype))
    read = contiguous(flat).reshape(-1).view(np.uint8)
    written = elements.view(np.uint8)
    filling, one = _bits_of(fill, flat.dtype), _bits_of(1, mask.dtype)
    on.split(
        rows,
        2 * padded.nbytes,
        lambda b, e: ragged.pad(
            read, written, elements, inside, splits, size, width, filling, one, b, e
        ),
    )


def _pack_on_gpu(padded: Array, splits: Array, on: Cuda, out: Array | None) -> Array:
    from penstock_kernels.cuda.arrays import checked_pointer, dtype_of, pointer, view_of

    out, view = require_given(out), view_of(padded)
    rows, size, tail = _padded_shape(view.shape)
    width, bits = math.prod(tail), _bits(view.dtype)
    written = checked_pointer(out, dtype_of(padded), "out")
    require_shape(view_of(out).shape[1:], tail, "a row of out")
    arguments = (pointer(padded), written, checked_pointer(splits, INT64, "splits", (rows + 1,)))
    tokens = view_of(out).shape[0]
    sizes = (np.int64(rows), np.int64(size), np.int64(width), np.int64(tokens))
    kernel = f"pack_{8 * bits.itemsize}"
    on.run("ragged", kernel, _blocks(rows * size * width), *arguments, *sizes)
    return out


def _pad_on_gpu(
    flat: Array, splits: Array, on: Cuda, fill: float, out: tuple[Array, Array] | None
) -> tuple[Array, Array]:
    from penstock_kernels.cuda.arrays import checked_pointer, dtype_of, pointer, view_of

    out = require_given(out)
    view, masks = view_of(out[0]), view_of(out[1])
    rows, size, tail = _padded_shape(view.shape)
    width, bits = math.prod(tail), _bits(view.dtype)
    kernel = f"pad_{8 * bits.itemsize}"
    require_shape(masks.shape, (rows, size), "out[1]")
    require_shape(view_of(flat).shape[1:], tail, "a row of flat")
    arguments = (
        checked_pointer(flat, dtype_of(out[0]), "flat"),
        pointer(out[0]),
        pointer(out[1]),
        checked_pointer(splits, INT64, "splits", (rows + 1,)),
    )
    tokens = view_of(flat).shape[0]
    sizes = (np.int64(rows), np.int64(size), np.int64(width), np.int64(tokens))
    one = np.uint64(_bits_of(1, masks.dtype))
    values = (_bits_of(fill, view.dtype), one, np.int32(_bits(masks.dtype).itemsize))
    on.run("ragged", kernel, _blocks(rows * size * max(width, 1)), *arguments, *sizes, *values)
    return out


def _padded_shape(shape: Sequence[int]) -> tuple[int, int, tuple[int, ...]]:
    if len(shape) < 2:
        raise ValueError(f"padded has shape {list(shape)}; expected [rows, size, ...]")
    return shape[0], shape[1], tuple(shape[2:])


def _checked(splits: Array, rows: int, size: int | None) -> Array:
    """As contiguous int64. A wrong one would have the twin read behind the end."""
    if splits.ndim != 1 or splits.dtype.kind not in "iu" or len(splits) != rows + 1 or rows < 0:
        raise ValueError(
            f"splits is {splits.dtype} {list(splits.shape)}; expected integers [rows + 1]"
        )
    from penstock_kernels.cpu import ragged

    splits = np.ascontiguousarray(splits, INT64)
    if splits[0] != 0:
        raise ValueError(f"splits begins with {splits[0]}; expected 0")
    most = np.iinfo(np.int64).max if size is None else size
    row = ragged.first_wrong(splits, most)
    if row >= 0:
        length = splits[row + 1] - splits[row]
        raise ValueError(f"row {row} has length {length}; expected 0 up to {most}")
    return splits


def _made(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Array:
    return np.empty(shape, dtype) if out is None else require_out(out, shape, dtype, name)


def _bits(dtype: Any) -> np.dtype[Any]:
    kind = np.dtype(dtype)
    if kind.hasobject or kind.itemsize not in _BITS:
        raise TypeError(f"elements are of {kind}; expected a type of 1, 2, 4 or 8 bytes")
    return _BITS[kind.itemsize]


def _bits_of(value: float, dtype: Any) -> Any:
    """A value's bits, as a NumPy scalar."""
    return np.array(value, dtype).view(_bits(dtype))[()]


def _blocks(elements: int) -> int:
    return min(-(-elements // 256), 1 << 20)
