"""All priority levels of a queue: the most urgent one first, but none waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import chain
from math import inf
from typing import Final, Generic

from penstock.scheduling.lane import Lane, Request
from penstock.scheduling.level import Level
from penstock.scheduling.queue_policy import LATE

AGEING_US: Final = 1_000_000
AGEING_BATCHES: Final = 10
"""A level whose first request has waited this long, and for as many full batches, leads the next one, whatever waits
above it: those lose one batch a period to each level below them, and no more than a tenth."""


class Levels(Generic[Request]):
    """Where every request waits until it is served."""

    def __init__(self, weight_of: Callable[[str], float]) -> None:
        self._weight_of = weight_of
        self._levels: dict[float, Level[Request]] = {}

    def __iter__(self) -> Iterator[Level[Request]]:
        """Those where something waits, most urgent first."""
        waiting = (level for level in self._levels.values() if level.lanes)
        return iter(sorted(waiting, key=lambda level: level.number))

    def add(self, request: Request, now_us: float) -> None:
        """Queue a request."""
        level = self._levels.get(request.priority)
        if level is None:
            level = Level[Request](request.priority, self._weight_of)
            self._levels[request.priority] = level
        level.add(request, now_us)

    def remove(self, request: Request) -> None:
        """Take a waiting request out; its tenant is not charged."""
        self._levels[request.priority].remove(request)

    def serve(
        self, shape: Hashable, batch: Sequence[Request], batch_rows: int, now_us: float
    ) -> None:
        """Take out the requests of a batch, which are the first ones of the shape `in_order`, and charge their
        tenants. `batch_rows`: of a full batch."""
        if len(self._levels) == 1:
            (level,) = self._levels.values()
            level.serve(shape, batch, batch_rows, now_us)
            return
        for level in self:
            if part := [request for request in batch if request.priority == level.number]:
                level.serve(shape, part, batch_rows, now_us)

    def clear(self) -> list[Request]:
        """Take all out, most urgent level first."""
        waiting = [request for lane in self.lanes() for request in lane.requests()]
        self._levels.clear()
        return waiting

    def in_turn(self, now_us: float, full_us: float) -> Sequence[Level[Request]]:
        """Levels where something waits in the order of their turns; `full_us`: what a full batch takes."""
        if len(self._levels) == 1:
            return tuple(self._levels.values())
        aged_us = now_us - max(AGEING_US, AGEING_BATCHES * full_us)
        return sorted(self, key=lambda level: level.since_us if level.since_us <= aged_us else inf)

    def rows_before(self, request: Request) -> float:
        """About how many rows would go before this request if it came now."""
        rows = 0.0
        for level in self._levels.values():
            if level.number == request.priority:
                rows += level.rows_before(request)
            elif level.number < request.priority:
                rows += level.rows
        return rows

    def requests_of(self, number: float) -> int:
        """How many of that level wait, with the late ones."""
        parts = (self._levels.get(each) for each in (number, number + LATE))
        return sum(len(lane) for part in parts if part for lane in part.lanes.values())

    def lanes(self) -> Iterator[Lane[Request]]:
        """All, of the most urgent level first."""
        return chain.from_iterable(level.lanes.values() for level in self)
