"""One priority level: shares a model among tenants by their weights, in rows.

Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996): each tenant has a tag, the rows it has had divided by its
weight, and whose tag is smallest is next. It gives the shares of a deficit round robin with a bound as tight, but
has no rounds: a batch holds one shape, and who has none of it is passed over without gaining or losing a turn.

A tenant may ride in others' batches, where there is room, before its turn. It is charged for that, but never falls
behind by more than a batch: what nobody else could have had is not held against it for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Final, Generic

from penstock.scheduling.lane import Entry, Lane, Request

MAX_DEBTS: Final = 1024
"""Tenants without requests whose tags are remembered. The ones that left first are forgotten first."""


class Level(Generic[Request]):
    """The lanes of all tenants that have requests in it."""

    def __init__(self, number: float, weight_of: Callable[[str], float]) -> None:
        self.number = number
        self.lanes: dict[str, Lane[Request]] = {}
        self.rows = 0
        self.since_us = 0.0
        """When its first request was served last, or began to wait."""
        # asked anew for each batch, for weights may change while a tenant has requests here
        self._weight_of = weight_of
        self._now = 0.0
        """The smallest tag of those who still waited when a batch was taken last: where those start who come anew."""
        self._debts: dict[str, float] = {}
        # the lane that ended last: at low load its tenant is the one that comes next
        self._spare: Lane[Request] | None = None

    def add(self, request: Request, now_us: float) -> None:
        """Queue a request."""
        lane = self.lanes.get(request.tenant)
        if lane is None:
            if not self.lanes:
                self.since_us = now_us
            lane = self._new_lane(request.tenant)
        lane.add(request)
        self.rows += request.rows

    def remove(self, request: Request) -> None:
        """Take a waiting request out; its tenant is not charged."""
        lane = self.lanes[request.tenant]
        lane.remove(request)
        self.rows -= request.rows
        if not lane:
            self._end(lane)

    def serve(
        self, shape: Hashable, batch: Sequence[Request], batch_rows: int, now_us: float
    ) -> None:
        """Take the requests of a batch out, and charge their tenants.

        They are the first ones of the shape, as `in_order` gives them. `batch_rows`: of a full batch.
        """
        if self.first().shape_key == shape:
            self.since_us = now_us
        if len(self.lanes) == 1:
            (lane,) = self.lanes.values()
            self._now = max(self._now, lane.tag)
            self._serve(lane, shape, batch, batch_rows)
            return
        self._now = max(self._now, min(lane.tag for lane in self.lanes.values()))
        for tenant, requests in _by_tenant(batch).items():
            self._serve(self.lanes[tenant], shape, requests, batch_rows)
        if self.lanes:
            # who asked for less than its share saves nothing up: it comes back where those are who still wait
            self._now = max(self._now, min(lane.tag for lane in self.lanes.values()))

    def first(self) -> Request:
        """Who is next; there is one."""
        if len(self.lanes) == 1:
            (lane,) = self.lanes.values()
            return lane.first()
        return min(self.lanes.values(), key=lambda lane: lane.tag).first()

    def place(self, shape: Hashable) -> tuple[float, float, int] | None:
        """Sorts the shapes by the request that is first of each; None where the shape has none here."""
        places = (
            (lane.tag, *entries[0][:2])
            for lane in self.lanes.values()
            if (entries := lane.of(shape))
        )
        return min(places, default=None)

    def in_order(self, shape: Hashable) -> Iterator[Request]:
        """Requests of the shape in the order in which they are to be served. Nothing may change meanwhile."""
        if len(self.lanes) == 1:
            (lane,) = self.lanes.values()
            return (entry[2] for entry in lane.of(shape))
        return _merged(self.lanes.values(), shape)

    def rows_before(self, request: Request) -> float:
        """About how many rows of this level go before a request that comes now.

        Those of its own tenant by deadline, and of the others as much as their weights let them have meanwhile.
        """
        lane = self.lanes.get(request.tenant)
        own = lane.rows_before(request.deadline_us) if lane is not None else 0.0
        if len(self.lanes) - (lane is not None) == 0:
            return own
        weight = lane.weight if lane is not None else self._weight_of(request.tenant)
        others = [other for other in self.lanes.values() if other is not lane]
        weights = sum(other.weight for other in others)
        share = (own + request.rows) * weights / weight
        return own + min(share, sum(other.rows for other in others))

    def _serve(
        self, lane: Lane[Request], shape: Hashable, requests: Sequence[Request], batch_rows: int
    ) -> None:
        rows = sum([request.rows for request in requests])
        lane.remove_first(shape, len(requests), rows)
        self.rows -= rows
        lane.weight = self._weight_of(lane.tenant)
        # who is further ahead than by a batch has only had what was left over
        lane.tag = min(lane.tag, self._now + batch_rows / lane.weight) + rows / lane.weight
        if not lane:
            self._end(lane)

    def _new_lane(self, tenant: str) -> Lane[Request]:
        if not self.lanes:
            # nobody waited for anything: nobody owes anybody
            self._now = 0.0
            self._debts.clear()
        lane = self._spare
        if lane is None or lane.tenant != tenant:
            lane = Lane[Request](tenant, self._weight_of(tenant))
        self._spare = None
        lane.tag = max(self._debts.pop(tenant, 0.0), self._now)
        self.lanes[tenant] = lane
        return lane

    def _end(self, lane: Lane[Request]) -> None:
        """Its tenant has nothing more here; what it had too much of is not forgotten while others wait."""
        del self.lanes[lane.tenant]
        self._spare = lane
        if self.lanes and lane.tag > self._now:
            self._debts[lane.tenant] = lane.tag
            if len(self._debts) > MAX_DEBTS:
                del self._debts[next(iter(self._debts))]


def _by_tenant(requests: Iterable[Request]) -> dict[str, list[Request]]:
    found: dict[str, list[Request]] = {}
    for request in requests:
        found.setdefault(request.tenant, []).append(request)
    return found


def _merged(lanes: Iterable[Lane[Request]], shape: Hashable) -> Iterator[Request]:
    heap: list[tuple[float, int, int, Sequence[Entry[Request]], float]] = [
        (lane.tag, index, 0, entries, lane.weight)
        for index, lane in enumerate(lanes)
        if (entries := lane.of(shape))
    ]
    heapify(heap)
    while heap:
        tag, index, position, entries, weight = heap[0]
        request = entries[position][2]
        yield request
        if position + 1 < len(entries):
            following = (tag + request.rows / weight, index, position + 1, entries, weight)
            heapreplace(heap, following)
        else:
            heappop(heap)
