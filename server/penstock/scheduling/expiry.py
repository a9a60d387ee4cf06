"""Whose time is over: the deadlines of all requests that wait or run."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, Protocol, TypeVar

SLACK: Final = 64
"""Answered requests that may be kept, beyond as many as there are others, before they are thrown out."""


class Mortal(Protocol):
    """A request with a deadline."""

    deadline_us: float
    done: bool
    """Whether it has its answer."""


Request = TypeVar("Request", bound=Mortal)


class Expiry(Generic[Request]):
    """A heap of deadlines. Answered requests stay in it until they are met, or are too many: they hold memory."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._number = 0
        self._answered = 0

    def add(self, request: Request) -> None:
        """Watch a request that has a deadline."""
        self._number += 1
        heappush(self._heap, (request.deadline_us, self._number, request))

    def answered(self) -> None:
        """One of the watched requests has its answer."""
        self._answered += 1
        if self._answered > SLACK + len(self._heap) // 2:
            self._heap[:] = [entry for entry in self._heap if not entry[2].done]
            heapify(self._heap)
            self._answered = 0

    def due(self, now_us: float) -> Iterator[Request]:
        """Those whose time is over and who have no answer, each once."""
        heap = self._heap
        while heap and (heap[0][2].done or heap[0][0] <= now_us):
            request = heappop(heap)[2]
            if not request.done:
                yield request
            else:
                self._answered = max(0, self._answered - 1)

    @property
    def next_us(self) -> float | None:
        """The earliest deadline; None when there is none."""
        return self._heap[0][0] if self._heap else None
