"""The queue of one model: it holds requests until a batch of them is due, and says which ones go together.

Pure logic: no I/O and no clock. Times are microseconds of any monotonic clock, passed in as `now_us`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Generic

from penstock.scheduling.gathering import Cost, Gathered, gather, unknown
from penstock.scheduling.lane import Request
from penstock.scheduling.level import Level
from penstock.scheduling.levels import Levels
from penstock.scheduling.queue_policy import LATE, QueuePolicies, QueueTimes, is_late
from penstock.scheduling.room import Room

AGAIN: Final = 1 << 62
"""More than there will ever be requests."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How requests may be joined, and how many may wait."""

    max_rows: int = 1
    """Rows a batch may hold at most."""
    merge: bool = False
    """False: every request runs alone (Triton's behaviour without `dynamic_batching`)."""
    preferred_rows: tuple[int, ...] = ()
    """Sizes worth sending at once when they can be met exactly, even while there is time left to wait."""
    max_delay_us: int = 0
    """How long the oldest request may be held back for company. 0: never."""
    max_batch_bytes: int = 1 << 30
    """Input bytes a batch may hold at most."""
    max_queue_requests: int = 10_000
    max_queue_bytes: int = 1 << 30
    levels: QueuePolicies | None = None
    """What holds for each level beside; None: nothing."""


@dataclass(slots=True)
class Waiting:
    """All that waits of one shape, in whichever lane."""

    rows: int
    requests: int
    since_us: float | None
    """When the oldest of them came, or one before it that was cancelled; None: to be looked up."""


class Batcher(Generic[Request]):
    """Bounded queue and batch builder. Work-conserving unless the policy asks to wait.

    Order: priority level, then the tenants' fair shares, then the earliest deadline.
    """

    def __init__(
        self,
        model: str,
        policy: BatchPolicy,
        weight_of: Callable[[str], float] = lambda _: 1.0,
        usual: Cost = unknown,
    ) -> None:
        """`usual`: what batches cost on any instance; it decides when one is due."""
        self._policy = policy
        self._room = Room(model, policy)
        self._preferred = sorted(policy.preferred_rows, reverse=True)
        self._usual = usual
        self.levels = Levels[Request](weight_of)
        self.times = None if policy.levels is None else QueueTimes[Request](policy.levels)
        """When waits are over, where there are policies for that."""
        self.delayed = 0
        """Requests that waited for too long, and went behind the others of their level."""
        self._shapes: dict[Hashable, Waiting] = {}
        self._numbers = 0
        self._fill = 1.0 if policy.merge else 1 / policy.max_rows
        self.requests = 0
        self.rows = 0
        self.nbytes = 0
        self.rows_cap = policy.max_rows
        """Rows of a batch that are worth waiting for: the policy's, or what the SLO controller has found."""
        self.delay_us: float = policy.max_delay_us
        """As the policy's `max_delay_us`, or what the SLO controller has found."""

    # ── in ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def check_room(self, request: Request) -> None:
        """Raises QueueFull where one more request would be over a bound on requests or bytes."""
        policy = self._policy
        if policy.levels is not None:
            self._room.check_level(request, self.levels, self.requests)
        more_bytes = self.nbytes + request.nbytes
        if self.requests >= policy.max_queue_requests or more_bytes > policy.max_queue_bytes:
            self._room.check(request, self.levels, self.requests, self.nbytes)

    def add(self, request: Request, now_us: float, *, again: bool = False) -> None:
        """Queue a request. `again`: it was in the queue before, and goes before those of its deadline that were not."""
        self._numbers += 1
        request.number = self._numbers - AGAIN if again else self._numbers
        rows = request.rows
        self.levels.add(request, now_us)
        waiting = self._shapes.get(request.shape_key)
        if waiting is None:
            self._shapes[request.shape_key] = Waiting(rows, 1, request.arrived_ns / 1000)
        else:
            waiting.rows += rows
            waiting.requests += 1
            if again:
                waiting.since_us = None
        self.requests += 1
        self.rows += rows
        self.nbytes += request.nbytes
        if self.times is not None and not again and not is_late(request.priority):
            self.times.watch(request, now_us, self.requests)

    def cancel(self, request: Request) -> bool:
        """Take a waiting request out. False when it isn't waiting (any more)."""
        if not request.number:
            return False
        self.levels.remove(request)
        self._forget(request.shape_key, [request], request.rows, request.nbytes)
        return True

    def end_waits(self, now_us: float) -> list[Request]:
        """Apply the policies of the levels to those who have waited for too long: some go behind all others of their
        level, the rest is returned, and out of the queue."""
        assert self._policy.levels is not None and self.times is not None, "there are policies"
        rejected: list[Request] = []
        for request in self.times.over(now_us):
            self.cancel(request)
            if self._policy.levels.of(request.priority).delays:
                request.priority += LATE
                self.add(request, now_us)
                self.delayed += 1
            else:
                rejected.append(request)
        return rejected

    # ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def take(
        self, now_us: float, cost: Cost = unknown, *, only_full: bool = False
    ) -> tuple[list[Request], list[Request]]:
        """The batch that is due now, and those that were met on the way and can't be on time any more; both are out of
        the queue then. The batch is empty when none is due.

        `cost`: of this batch, on the instance it is for. `only_full`: nothing unless some batch could not get any
        bigger by waiting. What is due before that one still goes before it: else a rare shape would starve behind a
        busy one.
        """
        late: list[Request] = []
        while self.requests and not (only_full and not self._any_full()):
            shape, limit = self._choose(now_us)
            if not limit:
                break
            in_order = self._in_order(shape, now_us)
            gathered = gather(in_order, limit, self._policy.max_batch_bytes, now_us, cost)
            if not gathered.late:
                self._serve(shape, gathered, now_us)
                return gathered.batch, late
            # whose turn it is, and what is full, may be because of them
            for request in gathered.late:
                self.cancel(request)
            late += gathered.late
        return [], late

    def next_due_us(self) -> float | None:
        """When `take` will have something though nothing arrives; None when the queue is empty."""
        return min((self._due_us(shape) for shape in self._shapes), default=None)

    def drain(self) -> list[Request]:
        """Take out all that waits, most urgent level first."""
        waiting = self.levels.clear()
        for request in waiting:
            request.number = 0
        self._shapes.clear()
        self.requests = self.rows = self.nbytes = 0
        return waiting

    # ── asked about ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def batch_rows(self) -> float:
        """What a long queue goes out in: fewer rows than a batch may hold where requests can't be joined so well."""
        return max(1.0, self._fill * self.rows_cap)

    # ── which batch ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _choose(self, now_us: float) -> tuple[Hashable, int]:
        """The shape whose turn it is, of those that may go now, and how many rows of it; 0 where there is none."""
        levels = self._in_turn(now_us)
        shape = levels[0].first().shape_key
        limit = self._due_rows(shape, now_us)
        if limit or len(self._shapes) == 1:
            return shape, limit
        due = {other: rows for other in self._shapes if (rows := self._due_rows(other, now_us))}
        for level in levels:
            places = [(place, shape) for shape in due if (place := level.place(shape))]
            if places:
                shape = min(places, key=lambda found: found[0])[1]
                return shape, due[shape]
        return shape, 0

    def _due_rows(self, shape: Hashable, now_us: float) -> int:
        """How many rows of the shape may go now; 0 for none."""
        if not self._policy.merge:
            return 1
        rows = self._shapes[shape].rows
        if rows >= self.rows_cap:
            return self.rows_cap
        for preferred in self._preferred:
            if preferred <= rows and self._sums_to(shape, preferred, now_us):
                return preferred
        if not self.delay_us or now_us >= self._due_us(shape):
            return rows
        return 0

    def _due_us(self, shape: Hashable) -> float:
        """When waiting for company ends: the delay is over, or a deadline would not be met."""
        waiting = self._shapes[shape]
        if waiting.since_us is None:
            waiting.since_us = self._oldest_us(shape)
        due_us = waiting.since_us + self.delay_us
        tightest_us = min(
            entries[0][0] for lane in self.levels.lanes() if (entries := lane.of(shape))
        )
        if tightest_us == inf:
            return due_us
        return min(due_us, tightest_us - 2 * self._usual(waiting.rows))

    def _any_full(self) -> bool:
        cap = self.rows_cap if self._policy.merge else 0
        return any(waiting.rows >= cap for waiting in self._shapes.values())

    def _sums_to(self, shape: Hashable, rows: int, now_us: float) -> bool:
        """Whether the next requests have exactly `rows` rows together: batches are never cut within a request."""
        waiting = self._shapes[shape]
        if waiting.rows == waiting.requests:
            return True
        total = 0
        for request in self._in_order(shape, now_us):
            total += request.rows
            if total >= rows:
                break
        return total == rows

    def _in_order(self, shape: Hashable, now_us: float) -> Iterator[Request]:
        levels = self._in_turn(now_us)
        if len(levels) == 1:
            return levels[0].in_order(shape)
        return (request for level in levels for request in level.in_order(shape))

    def _in_turn(self, now_us: float) -> Sequence[Level[Request]]:
        return self.levels.in_turn(now_us, self._usual(round(self.batch_rows)))

    # ── books ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _serve(self, shape: Hashable, gathered: Gathered[Request], now_us: float) -> None:
        batch = gathered.batch
        self.levels.serve(shape, batch, self.rows_cap, now_us)
        self._forget(shape, batch, gathered.rows, gathered.nbytes)
        if self.rows >= self.rows_cap:
            self._fill += (gathered.rows / self.rows_cap - self._fill) / 8
        if waiting := self._shapes.get(shape):
            waiting.since_us = None

    def _oldest_us(self, shape: Hashable) -> float:
        """When the oldest of the shape came: looked up only while they are fewer than a batch."""
        return (
            min(entry[2].arrived_ns for lane in self.levels.lanes() for entry in lane.of(shape))
            / 1000
        )

    def _forget(self, shape: Hashable, requests: Sequence[Request], rows: int, nbytes: int) -> None:
        """The requests, all of one shape, have left their levels."""
        for request in requests:
            request.number = 0
        waiting = self._shapes[shape]
        waiting.rows -= rows
        waiting.requests -= len(requests)
        if not waiting.requests:
            del self._shapes[shape]
        self.requests -= len(requests)
        self.rows -= rows
        self.nbytes -= nbytes
