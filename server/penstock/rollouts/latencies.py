"""How long the stable version's requests take now: a histogram that forgets."""

from __future__ import annotations

from typing import Final

BUCKETS: Final = 64 * 8
"""Eight for each doubling."""
FORGETS: Final = 0.8
"""What counts of it a window later."""
ENOUGH: Final = 100


def bucket_of(latency_us: float) -> int:
    """Eight for each doubling, in units of 1/16 µs."""
    ticks = max(int(latency_us * 16), 8)
    bits = ticks.bit_length()
    return min(((bits - 4) << 3) | ((ticks >> (bits - 4)) & 7), BUCKETS - 1)


def upper_us(bucket: int) -> float:
    """Where a bucket ends."""
    return float((8 + (bucket & 7) + 1) << (bucket >> 3)) / 16


class RunningLatencies:
    """What quantiles are read from, once a window."""

    def __init__(self, counts: dict[int, float]) -> None:
        """`counts`: those that are not 0, and stay so: it is what is saved."""
        self._counts = counts

    def add(self, latency_us: float) -> None:
        """One more."""
        bucket = bucket_of(latency_us)
        counts = self._counts
        counts[bucket] = counts.get(bucket, 0.0) + 1.0

    def thresholds(self, quantiles: tuple[float, ...]) -> list[float]:
        """A latency for each quantile; none while too few are known. Then it forgets a part."""
        counts = self._counts
        total = sum(counts.values())
        if total < ENOUGH:
            return []
        found: list[float] = []
        below, wanted = 0.0, iter(sorted(quantiles))
        quantile = next(wanted)
        for bucket in sorted(counts):
            below += counts[bucket]
            while below >= quantile * total:
                found.append(upper_us(bucket))
                following = next(wanted, None)
                if following is None:
                    self._forget()
                    return found
                quantile = following
        raise AssertionError("all of a total is at most the total")

    def _forget(self) -> None:
        for bucket, count in list(self._counts.items()):
            if count * FORGETS < 0.05:
                del self._counts[bucket]
            else:
                self._counts[bucket] = count * FORGETS
