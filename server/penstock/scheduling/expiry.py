"""Whose time is over: the deadlines of all requests that wait or run."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, Protocol, TypeVar

SLACK: Final = 64
"""Deadlines of answered requests that may be kept, beyond as many as there are others, before they are thrown out."""


class Mortal(Protocol):
    """A request with a deadline."""

    deadline_us: float
    done: bool
    """Whether it has its answer."""


Request = TypeVar("Request", bound=Mortal)


class _Entry(Generic[Request]):
    """A deadline in the heap."""

    __slots__ = ("deadline_us", "number", "request")

    def __init__(self, deadline_us: float, number: int, request: Request) -> None:
        self.deadline_us = deadline_us
        self.number = number
        self.request: Request | None = request
        """None once it has its answer: it may be megabytes, and its deadline far away."""

    def __lt__(self, other: _Entry[Request]) -> bool:
        return (self.deadline_us, self.number) < (other.deadline_us, other.number)


class Expiry(Generic[Request]):
    """A heap of deadlines. Those of answered requests stay in it until they are met, or are too many."""

    def __init__(self) -> None:
        self._heap: list[_Entry[Request]] = []
        self._entries: dict[Request, _Entry[Request]] = {}
        self._number = 0
        self._answered = 0

    def add(self, request: Request) -> None:
        """Watch a request that has a deadline."""
        self._number += 1
        entry = self._entries[request] = _Entry(request.deadline_us, self._number, request)
        heappush(self._heap, entry)

    def answered(self, request: Request) -> None:
        """The request, if it is watched, has its answer."""
        entry = self._entries.pop(request, None)
        if entry is None:
            return
        entry.request = None
        self._answered += 1
        if self._answered > SLACK + len(self._heap) // 2:
            self._heap[:] = [entry for entry in self._heap if entry.request is not None]
            heapify(self._heap)
            self._answered = 0

    def due(self, now_us: float) -> Iterator[Request]:
        """Those whose time is over and who have no answer, each once."""
        heap = self._heap
        while heap:
            request = heap[0].request
            if request is not None and not request.done and heap[0].deadline_us > now_us:
                return
            heappop(heap)
            if request is None:
                self._answered -= 1
                continue
            del self._entries[request]
            if not request.done:
                yield request

    @property
    def next_us(self) -> float | None:
        """The earliest deadline; None when there is none."""
        return self._heap[0].deadline_us if self._heap else None
