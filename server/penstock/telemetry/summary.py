"""Quantiles over the last minute, to one percent of their value, for an addition a value.

Values are counted by their logarithm: each bucket is two percent wider than the one below it. The minute is made of
parts, of which the oldest is forgotten as a new one begins.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from math import log, nan
from typing import Final

_GROWTH: Final = 1.02
_PER_LOG: Final = 1 / log(_GROWTH)
_MIDDLE: Final = 2 / (1 + _GROWTH)
"""Of a bucket, as a share of its upper bound: no value in it is further away than one percent."""

PART_MS: Final = 12_000
PARTS: Final = 5
"""As in Triton: five parts make a minute."""


class Summary:
    """`count` and `sum` are of all values ever seen, quantiles of those of the last minute. Values are at least 1."""

    __slots__ = ("_counts", "_part", "_parts", "count", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0
        self._part = -1
        self._counts: dict[int, int] = {}
        self._parts: deque[tuple[int, dict[int, int]]] = deque(maxlen=PARTS)

    def observe(self, value: int, times: int, now_ms: int) -> None:
        """Count one value that was seen so many times."""
        self.count += times
        self.sum += value * times
        self._turn(now_ms)
        self._counts[int(log(max(value, 1)) * _PER_LOG)] += times

    def observe_many(self, values: Iterable[int], now_ms: int) -> None:
        """Count all values of a batch."""
        self._turn(now_ms)
        counts = self._counts
        for value in values:
            self.count += 1
            self.sum += value
            counts[int(log(max(value, 1)) * _PER_LOG)] += 1

    def quantiles(self, wanted: Sequence[float], now_ms: int) -> Iterator[float]:
        """The value of each quantile, 0 to 1; not a number when there was no value."""
        oldest = now_ms // PART_MS - PARTS + 1
        merged: dict[int, int] = defaultdict(int)
        for part, counts in self._parts:
            if part >= oldest:
                for bucket, count in counts.items():
                    merged[bucket] += count
        total = sum(merged.values())
        for quantile in wanted:
            yield _value_at(merged, quantile * total) if total else nan

    def _turn(self, now_ms: int) -> None:
        part = now_ms // PART_MS
        if part != self._part:
            self._part = part
            self._counts = defaultdict(int)
            self._parts.append((part, self._counts))


def _value_at(counts: dict[int, int], rank: float) -> float:
    seen = 0
    bucket = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            break
    # the bucket's values are from this power of the growth to the next
    return float(_GROWTH ** (bucket + 1) * _MIDDLE)
