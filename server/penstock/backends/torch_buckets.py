"""Which batches a model runs as which: padded to a few sizes, each of which is captured once. Pure.

A CUDA graph is a recording of one run, for tensors of fixed shapes at fixed places. A batch is padded to the next size
that there is one for. How many are made is bounded, for each holds memory of the GPU.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final

from penstock.types import Array

MAX_GRAPHS: Final = 16
"""Unless the parameter `cuda_graphs_max` says otherwise."""
SEEN_BEFORE_CAPTURE: Final = 2
"""A shape that comes once may never come again, and a capture takes as long as several runs."""
MAX_SHAPES_COUNTED: Final = 256

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


class Way(Enum):
    """How a batch of one shape runs."""

    REPLAY = "replay"
    CAPTURE = "capture"
    PLAIN = "plain"


class Captures:
    """Which shapes are captured: those that come again, until there are as many as there may be."""

    def __init__(self, limit: int = MAX_GRAPHS) -> None:
        self._limit = limit
        self._captured: set[Shape] = set()
        self._refused: set[Shape] = set()
        self._seen: OrderedDict[Shape, int] = OrderedDict()

    def way(self, shape: Shape) -> Way:
        """How it is to run now. After CAPTURE, `done` or `failed` has to be called."""
        if shape in self._captured:
            return Way.REPLAY
        if len(self._captured) >= self._limit or shape in self._refused:
            return Way.PLAIN
        seen = self._seen.pop(shape, 0) + 1
        self._seen[shape] = seen
        if len(self._seen) > MAX_SHAPES_COUNTED:
            self._seen.popitem(last=False)
        return Way.CAPTURE if seen >= SEEN_BEFORE_CAPTURE else Way.PLAIN

    def done(self, shape: Shape) -> None:
        """It is captured."""
        self._seen.pop(shape, None)
        self._captured.add(shape)

    def failed(self, shape: Shape) -> None:
        """It can't be, and is not tried again. Once so many are refused as may be captured, no others are tried."""
        self._seen.pop(shape, None)
        self._refused.add(shape)
        if len(self._refused) >= self._limit:
            self._limit = len(self._captured)
