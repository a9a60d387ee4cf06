"""How long a batch takes, by its rows, learnt from those that ran."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from penstock.scheduling.drift import Change, Drift

WINDOW: Final = 25
"""Batches of one size that are remembered: a change shows after half of them."""

TRUSTED: Final = 3
"""Batches of one size before it counts."""

FEW: Final = 8
"""Up to so many, the faster ones count: the first batches warm caches up."""

MAX_AGE_US: Final = 60_000_000
"""What was seen longer ago says little of now."""

FRESH_US: Final = 2_000_000
"""Sizes most of whose batches were seen longer ago are held between what the fresh others let expect. Sudden changes
that show at the others were added to what these took: left alone, it would rise with each burst of slow batches, and
never come down with the gradual end of one."""

REFRESH: Final = 4
REFRESH_US: Final = 5_000
"""Batches and time between two looks at the samples: a look costs some microseconds a size, which is a good deal of
what there is for a batch of small requests."""

EXACT_ROWS: Final = 16
"""Larger sizes share a bucket with their neighbours, sixteen buckets an octave."""


@dataclass(frozen=True, slots=True)
class Point:
    """What is known of batches of one size."""

    rows: int
    median_us: float
    upper_us: float
    samples: int
    seen_us: float
    """Since when most of them were seen."""


class ServiceCurve:
    """Quartiles over a window: robust to outliers and to warm-up, and soon right again after a change: one that shows
    at most of the last batches is taken to hold for all sizes.

    Between sizes that were seen it interpolates, beyond them it is flat: what is not known is not held against anybody.
    """

    def __init__(self) -> None:
        self._seen: dict[int, deque[tuple[float, float]]] = {}
        self._changed: set[int] = set()
        self._drift = Drift()
        self._unread = 0
        self._read_us = -inf
        self._known: dict[int, Point] = {}
        self._points: tuple[Point, ...] = ()
        self._estimates: dict[int, tuple[float, float]] = {}

    def observe(self, rows: int, duration_us: float, now_us: float) -> None:
        """A batch of `rows` ran for so long."""
        key = bucket_of(rows)
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = deque(maxlen=WINDOW)
        seen.append((now_us, duration_us))
        point = self._known.get(key)
        if point is not None and point.median_us:
            self._drift.observe(now_us, duration_us / point.median_us)
        self._changed.add(key)
        self._unread += 1
        rested = self._unread >= REFRESH and now_us - self._read_us >= REFRESH_US
        if rested or len(seen) == TRUSTED:
            self._refresh(now_us)

    def expected_us(self, rows: int) -> float:
        """The usual time of such a batch; 0 while nothing is known."""
        return (self._estimates.get(rows) or self._estimate(rows))[0]

    def upper_us(self, rows: int) -> float:
        """The time that most such batches keep; 0 while nothing is known."""
        return (self._estimates.get(rows) or self._estimate(rows))[1]

    @property
    def known(self) -> bool:
        """Whether anything is."""
        return bool(self._points)

    @property
    def points(self) -> tuple[Point, ...]:
        """What is known, by rows."""
        return self._points

    def _refresh(self, now_us: float) -> None:
        self._unread = 0
        self._read_us = now_us
        change = self._drift.change()
        if change is not None:
            self._change(change)
        for key in self._changed:
            seen = self._seen[key]
            while len(seen) > TRUSTED and now_us - seen[0][0] > MAX_AGE_US:
                seen.popleft()
            if len(seen) >= TRUSTED:
                self._known[key] = _point(key, seen)
        self._changed.clear()
        points = sorted(self._known.values(), key=lambda point: point.rows)
        # the freshest always is: those of a model that is seldom asked are held by it
        fresh_since_us = min(now_us - FRESH_US, max((p.seen_us for p in points), default=now_us))
        self._points = tuple(_plausible(points, fresh_since_us))
        self._estimates.clear()

    def _change(self, change: Change) -> None:
        """Bring all that was seen before to what it would be now."""
        for key, seen in self._seen.items():
            for index, (at_us, duration_us) in enumerate(seen):
                if at_us < change.since_us:
                    seen[index] = (at_us, duration_us * change.factor)
            self._changed.add(key)

    def _estimate(self, rows: int) -> tuple[float, float]:
        if not self._points:
            return 0.0, 0.0
        estimate = self._estimates[rows] = _interpolated(self._points, rows)
        return estimate


def bucket_of(rows: int) -> int:
    """The largest size that shares a bucket with this one."""
    if rows <= EXACT_ROWS:
        return rows
    step = 1 << (rows.bit_length() - EXACT_ROWS.bit_length())
    return -(-rows // step) * step


def _point(rows: int, seen: Sequence[tuple[float, float]]) -> Point:
    durations = sorted([duration_us for _, duration_us in seen])
    last = len(durations) - 1
    median_us = durations[last // 2 if last >= FEW else last // 4]
    # nine of ten keep the median and twice what lies between it and the upper quartile, which outliers can't move
    upper_us = (
        median_us + 2 * max(0.0, durations[last * 3 // 4] - median_us) if last >= FEW else median_us
    )
    return Point(rows, median_us, upper_us, len(seen), seen[last // 2][0])


def _plausible(points: Sequence[Point], fresh_since_us: float) -> list[Point]:
    """Points that are not fresh, brought between those that are: more rows take no less time, and no more a row."""
    if all(point.seen_us >= fresh_since_us for point in points):
        return list(points)
    held: list[Point] = []
    for index, point in enumerate(points):
        if point.seen_us < fresh_since_us:
            below = next((p for p in reversed(points[:index]) if p.seen_us >= fresh_since_us), None)
            above = next((p for p in points[index:] if p.seen_us >= fresh_since_us), None)
            point = _between(below, point, above)
        held.append(point)
    return held


def _between(below: Point | None, point: Point, above: Point | None) -> Point:
    median_us = point.median_us
    if above is not None:
        median_us = min(max(median_us, above.median_us * point.rows / above.rows), above.median_us)
    if below is not None:
        median_us = max(min(median_us, below.median_us * point.rows / below.rows), below.median_us)
    upper_us = point.upper_us * median_us / point.median_us if point.median_us else median_us
    return replace(point, median_us=median_us, upper_us=upper_us)


def _interpolated(points: Sequence[Point], rows: int) -> tuple[float, float]:
    at = bisect_left(points, rows, key=lambda point: point.rows)
    if at == 0 or at == len(points) or points[at].rows == rows:
        point = points[min(at, len(points) - 1)]
        return point.median_us, point.upper_us
    low, high = points[at - 1], points[at]
    share = (rows - low.rows) / (high.rows - low.rows)
    return (
        low.median_us + share * (high.median_us - low.median_us),
        low.upper_us + share * (high.upper_us - low.upper_us),
    )
