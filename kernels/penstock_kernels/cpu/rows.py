"""Rows of bytes that lie anywhere in a slab."""

from __future__ import annotations

from penstock_kernels.cpu.jit import jit
from penstock_kernels.cpu.memory import copy_bytes
from penstock_kernels.runner import Array


@jit
def gather(slab: Array, offsets: Array, batch: Array, row_bytes: int, begin: int, end: int) -> None:
    """slab[offset:] → the batch's bytes, for rows begin:end."""
    for row in range(begin, end):
        copy_bytes(batch, row * row_bytes, slab, offsets[row], row_bytes)


@jit
def scatter(
    batch: Array, slab: Array, offsets: Array, row_bytes: int, begin: int, end: int
) -> None:
    """The batch's bytes → slab[offset:], for rows begin:end."""
    for row in range(begin, end):
        copy_bytes(slab, offsets[row], batch, row * row_bytes, row_bytes)


@jit
def first_outside(offsets: Array, last: int) -> int:
    """The first row that begins before 0 or behind `last`; -1: none does."""
    for row in range(offsets.shape[0]):
        if offsets[row] < 0 or offsets[row] > last:
            return row
    return -1
