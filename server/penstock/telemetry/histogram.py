"""A histogram whose cost is a bisection and a list increment; buckets add up on reading."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

_MICROSECOND_NS: Final = 1_000

DURATION_BOUNDS_NS: Final[tuple[int, ...]] = tuple(
    microseconds * _MICROSECOND_NS
    for microseconds in (
        *(100, 250, 500),
        *(1_000, 2_500, 5_000),
        *(10_000, 25_000, 50_000),
        *(100_000, 250_000, 500_000),
        *(1_000_000, 2_500_000, 5_000_000),
        *(10_000_000, 25_000_000, 60_000_000),
    )
)
"""Bounds for durations: 100 µs to 60 s, in whole nanoseconds so that sums stay exact."""

BATCH_SIZE_BOUNDS: Final[tuple[int, ...]] = tuple(2**power for power in range(11))
"""Bounds for rows a batch: powers of two from 1 to 1024."""


class Histogram:
    """Counts values by bucket; a bound belongs to its own bucket, as in Prometheus.

    `bounds` ascend; one more bucket takes what is larger. `sum` and `count` are of all values.
    """

    __slots__ = ("_buckets", "bounds", "count", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds: Final = bounds
        self.count = 0
        self.sum: float = 0
        self._buckets = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value, in the unit of the bounds."""
        self._buckets[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.sum += value

    def observe_many(self, values: Sequence[float]) -> None:
        """Count all values of a batch."""
        if not values:
            return
        bounds = self.bounds
        buckets = self._buckets
        # Requests of one batch mostly fall into one bucket, and else into few neighbours.
        first = bisect_left(bounds, min(values))
        last = bisect_left(bounds, max(values), first)
        if first == last:
            buckets[first] += len(values)
        else:
            for value in values:
                buckets[bisect_left(bounds, value, first, last)] += 1
        self.count += len(values)
        self.sum += sum(values)

    def cumulative(self) -> list[int]:
        """How many values were at most each bound, in order; last, how many there were."""
        return list(accumulate(self._buckets))
