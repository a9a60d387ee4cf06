"""Rows of different lengths, as bits of any type. Arrays are of one dimension."""

from __future__ import annotations

from penstock_kernels.cpu.jit import jit
from penstock_kernels.cpu.memory import copy_bytes
from penstock_kernels.runner import Array


@jit
def first_wrong(splits: Array, size: int) -> int:
    """The first row that falls, or is longer than `size`; -1: none."""
    for row in range(splits.shape[0] - 1):
        length = splits[row + 1] - splits[row]
        if length < 0 or length > size:
            return row
    return -1


@jit
def pack(
    padded: Array, flat: Array, splits: Array, row_bytes: int, item: int, begin: int, end: int
) -> None:
    """Bytes of rows → flat; `item` bytes are one of what splits counts."""
    for row in range(begin, end):
        start, stop = splits[row] * item, splits[row + 1] * item
        copy_bytes(flat, start, padded, row * row_bytes, stop - start)


@jit
def pad(
    flat: Array,
    padded: Array,
    elements: Array,
    mask: Array,
    splits: Array,
    size: int,
    width: int,
    fill: int,
    one: int,
    begin: int,
    end: int,
) -> None:
    """Bytes flat → rows of `size` tokens, `width` elements each; and the mask, `one` where there is a token.

    `elements` is `padded`, as elements: what is behind a row's end is filled with one of them.
    """
    row_elements = size * width
    itemsize = elements.itemsize
    for row in range(begin, end):
        length = splits[row + 1] - splits[row]
        first, used = row * row_elements, length * width
        start = splits[row] * width
        copy_bytes(padded, first * itemsize, flat, start * itemsize, used * itemsize)
        elements[first + used : first + row_elements] = fill
        mask[row * size : row * size + length] = one
        mask[row * size + length : (row + 1) * size] = 0
