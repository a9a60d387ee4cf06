"""Rows that lie anywhere in a slab (a buffer of bytes), and batches of them. Elements of any type of a fixed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from penstock_kernels.checks import INT64, require_given, require_numbers, require_out
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Array, Runner, contiguous

_WARP_BYTES: Final = 2048
"""A row up to this long is copied by a warp on a GPU, a longer one by a block."""


def gather(
    slab: Array,
    offsets: Array,
    on: Runner,
    shape: Sequence[int] = (),
    dtype: Any = np.uint8,
    out: Array | None = None,
) -> Array:
    """[rows, *shape] of the rows that begin at bytes `offsets` [rows] (int64) of `slab` (uint8 [bytes]).

    Raises ValueError for a row that isn't wholly in the slab; on a GPU it becomes zeros, for nobody looks there.
    """
    if isinstance(on, Cpu):
        from penstock_kernels.cpu import rows

        kind = np.dtype(dtype)
        require_numbers(kind, "a row")
        full = (len(offsets), *shape)
        result = np.empty(full, kind) if out is None else require_out(out, full, kind)
        row_bytes = math.prod(shape) * kind.itemsize
        offsets = _checked(slab, offsets, row_bytes)
        if result.size:
            written = result.reshape(-1).view(np.uint8)
            on.split(
                len(offsets),
                2 * result.nbytes,
                lambda begin, end: rows.gather(slab, offsets, written, row_bytes, begin, end),
            )
        return result
    out = require_given(out)
    _launch("gather", slab, offsets, out, on)
    return out


def scatter(batch: Array, slab: Array, offsets: Array, on: Runner) -> None:
    """Write each row of batch[rows, ...] to where it begins in `slab`, as `gather` reads them. They must not overlap.

    Raises ValueError for a row that isn't wholly in the slab, and writes none then; on a GPU it is left out.
    """
    if isinstance(on, Cpu):
        from penstock_kernels.cpu import rows

        require_numbers(batch.dtype, "batch")
        if not batch.ndim or len(batch) != len(offsets):
            raise ValueError(
                f"batch has shape {list(batch.shape)}; expected [{len(offsets)}, ...] as offsets has"
            )
        if not slab.flags.writeable:
            raise ValueError("the slab can't be written")
        row_bytes = math.prod(batch.shape[1:]) * batch.dtype.itemsize
        offsets = _checked(slab, offsets, row_bytes)
        if batch.size:
            read = contiguous(batch).reshape(-1).view(np.uint8)
            on.split(
                len(offsets),
                2 * batch.nbytes,
                lambda begin, end: rows.scatter(read, slab, offsets, row_bytes, begin, end),
            )
        return
    _launch("scatter", slab, offsets, batch, on)


def _checked(slab: Array, offsets: Array, row_bytes: int) -> Array:
    """The offsets, contiguous. A wrong one would have the twin read or write outside."""
    from penstock_kernels.cpu import rows

    if slab.dtype != np.uint8 or slab.ndim != 1 or not slab.flags.c_contiguous:
        raise ValueError(f"the slab is {slab.dtype} {list(slab.shape)}; expected uint8 [bytes]")
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise ValueError(
            f"offsets is {offsets.dtype} {list(offsets.shape)}; expected integers [rows]"
        )
    offsets = np.ascontiguousarray(offsets, np.int64)
    row = rows.first_outside(offsets, len(slab) - row_bytes)
    if row >= 0:
        raise ValueError(
            f"row {row} is at bytes {offsets[row]} to {offsets[row] + row_bytes};"
            f" the slab has {len(slab)}"
        )
    return offsets


def _launch(kernel: str, slab: Array, offsets: Array, batch: Array, on: Any) -> None:
    from penstock_kernels.cuda.arrays import checked_pointer, pointer, size_of, view_of

    view = view_of(batch)
    count = view.shape[0]
    row_bytes = math.prod(view.shape[1:]) * view.dtype.itemsize
    lanes = 32 if row_bytes <= _WARP_BYTES else 256
    blocks = min(-(-count * lanes // 256), 65535) if row_bytes else 0
    sizes = (np.int64(size_of(slab)), np.int64(count), np.int64(row_bytes), np.int32(lanes))
    arguments = (
        checked_pointer(slab, np.dtype(np.uint8), "the slab"),
        checked_pointer(offsets, INT64, "offsets", (count,)),
        pointer(batch),
    )
    on.run("rows", f"{kernel}_rows", blocks, *arguments, *sizes)
