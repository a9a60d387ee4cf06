"""Triton's queue policies: how many requests of a priority level may wait, for how long, and what becomes of the late.

Not a deadline: that bounds the answer, this only the wait. What was given to an instance in time is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, Generic

from penstock.scheduling.lane import Queueable, Request

LATE: Final = 0.5
"""Added to the level of a request that is late and may run all the same: behind all of its level that are on time,
before the next one."""

SLACK: Final = 64
"""Entries of requests that don't wait any more which may be kept, beyond as many as there are others."""


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """`ModelQueuePolicy` of one level."""

    timeout_us: float = 0
    """How long a request may wait; 0: for ever."""
    delays: bool = False
    """Late requests run behind all others of their level; False: they are refused when their time is over."""
    max_requests: int = 0
    """Requests that may wait; 0: as many as the whole queue may hold."""
    allows_override: bool = False
    """Clients may shorten the time."""


@dataclass(frozen=True, slots=True)
class QueuePolicies:
    """Of all levels of a queue."""

    default: QueuePolicy = QueuePolicy()
    levels: Mapping[float, QueuePolicy] = field(default_factory=dict)
    """Those that have their own."""

    def of(self, level: float) -> QueuePolicy:
        """The level's, on time or late."""
        return self.levels.get(int(level), self.default)

    def named(self) -> Iterator[tuple[str, QueuePolicy]]:
        """All there are, for a person."""
        yield "default", self.default
        yield from ((str(int(level)), policy) for level, policy in sorted(self.levels.items()))


def is_late(level: float) -> bool:
    """Whether it is the part of a level that holds the late ones."""
    return level % 1 != 0


class QueueTimes(Generic[Request]):
    """When the waits of requests are over. Those that leave before stay in it until they are met, or are too many."""

    def __init__(self, policies: QueuePolicies) -> None:
        self._policies = policies
        self._heap: list[tuple[float, int, Request]] = []

    def watch(self, request: Request, now_us: float, waiting: int) -> None:
        """It waits from now on, with its number, as one of so many."""
        own_us = request.queue_timeout_us
        limit_us = min(self._policies.of(request.priority).timeout_us or inf, own_us or inf)
        if limit_us == inf:
            return
        heappush(self._heap, (now_us + limit_us, request.number, request))
        if len(self._heap) > SLACK + 2 * waiting:
            self._heap[:] = [entry for entry in self._heap if _waits(entry)]
            heapify(self._heap)

    def over(self, now_us: float) -> Iterator[Request]:
        """Those that still wait and whose time is over, each once."""
        heap = self._heap
        while heap and (heap[0][0] <= now_us or not _waits(heap[0])):
            entry = heappop(heap)
            if _waits(entry):
                yield entry[2]

    @property
    def next_us(self) -> float | None:
        """When `over` may have something."""
        return self._heap[0][0] if self._heap else None


def _waits(entry: tuple[float, int, Queueable]) -> bool:
    """Still, and not again: who was taken and comes back has another number, and has waited enough."""
    return entry[2].number == entry[1]
