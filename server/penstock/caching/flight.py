"""A run of the model, and all the requests that wait for it because they are the same."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A request that waits."""

    deadline_us: float
    priority: float
    """1 the most urgent."""


Request = TypeVar("Request", bound=Waiting)


class Flight(Generic[Request]):
    """Its requests by deadline, then by arrival. The one that leads is who the run is accounted to."""

    def __init__(self, first: Request) -> None:
        self.leader = first
        self.priority = first.priority
        """The most urgent one that any of them has had."""
        self._order: list[tuple[float, int, Request]] = [(first.deadline_us, 0, first)]
        self._numbers: dict[Request, int] = {first: 0}
        self._next = 1

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Request]:
        return (entry[2] for entry in self._order)

    @property
    def first(self) -> Request:
        """Whose time ends first."""
        return self._order[0][2]

    @property
    def ends_us(self) -> float:
        """When the last one's time ends."""
        return self._order[-1][0]

    def board(self, request: Request) -> None:
        """One more waits for the run."""
        self._numbers[request] = self._next
        insort(self._order, (request.deadline_us, self._next, request))
        self._next += 1
        self.priority = min(self.priority, request.priority)

    def leave(self, request: Request) -> None:
        """One of them does not wait any more."""
        place = (request.deadline_us, self._numbers.pop(request))
        del self._order[bisect_left(self._order, place)]
