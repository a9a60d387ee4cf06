"""One tenant's waiting requests of one priority level: earliest deadline first, then first come."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Sequence
from typing import Generic, Protocol, TypeVar


class Queueable(Protocol):
    """What the scheduler must know of a request. Nothing but `number` changes while it waits."""

    rows: int
    """Its share of the batch dimension."""
    nbytes: int
    """Input bytes it holds."""
    shape_key: Hashable
    """Only requests of equal keys can be joined."""
    tenant: str
    priority: float
    """Level of the queue, 1 the most urgent; half a one more once it is late (`queue_policy.LATE`)."""
    deadline_us: float
    """Infinite without one."""
    arrived_ns: int

    @property
    def queue_timeout_us(self) -> float | None:
        """How long it may wait at most, where that is its client's to say; None: as its level's policy says."""
        ...

    number: int
    """Its place among requests of one deadline, set by the batcher; 0: it doesn't wait."""


Request = TypeVar("Request", bound=Queueable)

Entry = tuple[float, int, Request]
"""(deadline, number, request): sorts without ever comparing requests."""


class Lane(Generic[Request]):
    """Sorted lists, not heaps: a request's place tells how long it will wait, and any of them can leave at once.

    Inserting at the end, which is where requests without a deadline go, is as cheap as with a heap; elsewhere the
    list's memory moves, which takes less than a comparison in Python up to some ten thousand entries.
    """

    __slots__ = ("_order", "_shapes", "rows", "tag", "tenant", "weight")

    def __init__(self, tenant: str, weight: float) -> None:
        self.tenant = tenant
        self.weight = weight
        self.tag = 0.0
        """Rows this tenant has had, divided by its weight: the lane with the smallest one is next."""
        self.rows = 0
        self._order: list[Entry[Request]] = []
        # while there is but one shape, which is so for most models, its list is `_order` itself
        self._shapes: dict[Hashable, list[Entry[Request]]] = {}

    def __len__(self) -> int:
        return len(self._order)

    def add(self, request: Request) -> None:
        """Put the request, whose number is set, in its place."""
        entries = self._shapes.get(request.shape_key)
        if entries is None:
            entries = self._new_shape(request.shape_key)
        entry = (request.deadline_us, request.number, request)
        _insert(entries, entry)
        if entries is not self._order:
            _insert(self._order, entry)
        self.rows += request.rows

    def remove(self, request: Request) -> None:
        """Take a request out that is there."""
        entries = self._shapes[request.shape_key]
        _delete(entries, request)
        if entries is not self._order:
            _delete(self._order, request)
            if not entries:
                del self._shapes[request.shape_key]
        self.rows -= request.rows

    def remove_first(self, shape: Hashable, count: int, rows: int) -> None:
        """Take the first ones of the shape out, which have so many rows together."""
        entries = self._shapes[shape]
        if entries is not self._order:
            for entry in entries[:count]:
                _delete(self._order, entry[2])
        del entries[:count]
        if not entries and entries is not self._order:
            del self._shapes[shape]
        self.rows -= rows

    def first(self) -> Request:
        """The most urgent one of all shapes."""
        return self._order[0][2]

    def of(self, shape: Hashable) -> Sequence[Entry[Request]]:
        """All of that shape, most urgent first."""
        return self._shapes.get(shape, ())

    def requests(self) -> list[Request]:
        """All, most urgent first."""
        return [entry[2] for entry in self._order]

    def rows_before(self, deadline_us: float) -> float:
        """About how many rows wait for an earlier deadline than this, or for the same one."""
        before = bisect_left(self._order, (deadline_us, float("inf")))
        return self.rows * before / len(self._order) if before else 0

    def _new_shape(self, shape: Hashable) -> list[Entry[Request]]:
        if not self._order:
            # what was its only shape before has left
            self._shapes.clear()
            entries = self._order
        else:
            if any(entries is self._order for entries in self._shapes.values()):
                self._order = list(self._order)
            entries = []
        self._shapes[shape] = entries
        return entries


def _insert(entries: list[Entry[Request]], entry: Entry[Request]) -> None:
    if entries and entry < entries[-1]:
        insort(entries, entry)
    else:
        entries.append(entry)


def _delete(entries: list[Entry[Request]], request: Request) -> None:
    if entries[0][2] is request:
        del entries[0]
    else:
        del entries[bisect_left(entries, (request.deadline_us, request.number))]
