"""Which batches a model runs as which: padded to a few sizes, each of which is recorded once. Pure.

A CUDA graph is a recording of one run, for tensors of fixed shapes at fixed places. A batch is padded to the next size
that there is one for. How many are made is bounded, for each holds memory of the GPU.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from penstock.types import Array

MAX_GRAPHS: Final = 16
"""Unless the parameter `cuda_graphs_max` says otherwise."""

Shape = tuple[tuple[str, tuple[int, ...]], ...]
"""Of all inputs, in order, each with its bucket's rows."""


def bucket_sizes(
    max_batch_size: int, preferred: Iterable[int] = (), limit: int = MAX_GRAPHS
) -> tuple[int, ...]:
    """The sizes that batches are padded to, ascending: powers of two, the preferred ones, and the largest there can be.

    At most `limit`: the preferred ones and the largest come first, then the larger of the others, whose padding
    costs most.
    """
    if max_batch_size < 1 or limit < 1:
        return ()
    asked = {size for size in preferred if 0 < size <= max_batch_size}
    powers = {1 << exponent for exponent in range(max_batch_size.bit_length())}
    ranked = [max_batch_size, *sorted(asked, reverse=True), *sorted(powers, reverse=True)]
    return tuple(sorted(list(dict.fromkeys(ranked))[:limit]))


def bucket_of(rows: int, sizes: Sequence[int]) -> int | None:
    """The smallest size that has room for the rows; None: there is none."""
    index = bisect_left(sizes, rows)
    return sizes[index] if index < len(sizes) else None


def padded_shape(inputs: Mapping[str, Array], rows: int) -> Shape:
    """What the inputs' shapes are with so many rows."""
    return tuple([(name, (rows, *array.shape[1:])) for name, array in inputs.items()])
