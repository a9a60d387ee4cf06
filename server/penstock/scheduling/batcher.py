"""The queue of one model: it holds requests until a batch of them is due, and says which ones go together.

Pure logic: no I/O and no clock. Times are microseconds of any monotonic clock, passed in as `now_us`.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from penstock.errors import QueueFull

MAX_STALE: Final = 64
"""Outdated entries of the heap of heads, beyond one a bucket, from which on it is made anew."""


class Queueable(Protocol):
    """What the batcher must know of a request. Compared by identity."""

    rows: int
    """Its share of the batch dimension."""
    nbytes: int
    """Input bytes it holds."""
    shape_key: Hashable
    """Only requests of equal keys can be joined."""


Request = TypeVar("Request", bound=Queueable)


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


class Bucket(OrderedDict[Request, int]):
    """Waiting requests of one shape, oldest first → when each came. `rows` is their sum."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0


class Batcher(Generic[Request]):
    """Bounded queue and batch builder. Work-conserving unless the policy asks to wait."""

    def __init__(self, model: str, policy: BatchPolicy) -> None:
        self._model = model
        self._policy = policy
        self._preferred = sorted(policy.preferred_rows, reverse=True)
        self._buckets: dict[Hashable, Bucket[Request]] = {}
        # (arrival of a bucket's head, tie-breaker, its key); entries whose head has changed are skipped when met
        self._oldest: list[tuple[int, int, Hashable]] = []
        self._sequence = 0
        self.requests = 0
        self.nbytes = 0

    def add(self, request: Request, now_us: int) -> None:
        """Queue a request. Raises QueueFull at the bound on requests or bytes."""
        policy = self._policy
        if self.requests >= policy.max_queue_requests:
            raise QueueFull(
                f"Exceeds maximum queue size: model '{self._model}' has {self.requests} requests waiting"
            )
        if self.nbytes + request.nbytes > policy.max_queue_bytes:
            raise QueueFull(
                f"Exceeds maximum queue size: model '{self._model}' has {self.nbytes} bytes waiting, "
                f"{request.nbytes} more are over the bound of {policy.max_queue_bytes}"
            )
        bucket = self._buckets.get(request.shape_key)
        if bucket is None:
            bucket = self._buckets[request.shape_key] = Bucket()
        bucket[request] = now_us
        if len(bucket) == 1:
            self._note_head(request.shape_key, now_us)
        bucket.rows += request.rows
        self.requests += 1
        self.nbytes += request.nbytes

    def cancel(self, request: Request) -> bool:
        """Take a waiting request out. False when it isn't waiting (any more)."""
        bucket = self._buckets.get(request.shape_key)
        if bucket is None or request not in bucket:
            return False
        was_head = next(iter(bucket)) is request
        self._remove(bucket, request)
        self._after_removal(request.shape_key, bucket, head_changed=was_head)
        return True

    def take(self, now_us: int, *, only_full: bool = False) -> list[Request]:
        """The batch that is due now, removed from the queue; empty when none is.

        `only_full`: nothing unless some batch could not get any bigger by waiting. What is due and older than that
        one still goes before it: else a rare shape would starve behind a busy one.
        """
        if not self.requests or (only_full and not self._any_full()):
            return []
        since_us, _, key = self._head()
        limit = self._due_rows(self._buckets[key], since_us, now_us)
        if not limit and len(self._buckets) > 1:
            key, limit = self._oldest_due(now_us)
        return self._pop(key, limit) if limit else []

    def next_due_us(self) -> int | None:
        """When `take` will have something though nothing arrives; None when the queue is empty."""
        return self._head()[0] + self._policy.max_delay_us if self.requests else None

    def drain(self) -> list[Request]:
        """Take out all that waits, oldest first."""
        waiting = [
            (at, request) for bucket in self._buckets.values() for request, at in bucket.items()
        ]
        self._buckets.clear()
        self._oldest.clear()
        self.requests = self.nbytes = 0
        return [request for _, request in sorted(waiting, key=lambda entry: entry[0])]

    def _any_full(self) -> bool:
        max_rows = self._policy.max_rows if self._policy.merge else 0
        return any(bucket.rows >= max_rows for bucket in self._buckets.values())

    def _oldest_due(self, now_us: int) -> tuple[Hashable, int]:
        """Of the buckets that may go, the one with the oldest head, and how many rows; 0 where there is none."""
        oldest_us, found, limit = now_us, None, 0
        for key, bucket in self._buckets.items():
            since_us = next(iter(bucket.values()))
            if limit and since_us >= oldest_us:
                continue
            rows = self._due_rows(bucket, since_us, now_us)
            if rows:
                oldest_us, found, limit = since_us, key, rows
        return found, limit

    def _due_rows(self, bucket: Bucket[Request], since_us: int, now_us: int) -> int:
        """How many rows of the bucket may go now; 0 for none."""
        policy = self._policy
        if not policy.merge:
            return 1
        if bucket.rows >= policy.max_rows:
            return policy.max_rows
        for rows in self._preferred:
            if rows <= bucket.rows and _prefix_sums_to(bucket, rows):
                return rows
        return bucket.rows if now_us - since_us >= policy.max_delay_us else 0

    def _pop(self, key: Hashable, limit: int) -> list[Request]:
        """The bucket's oldest requests of up to `limit` rows, and at least one."""
        bucket = self._buckets[key]
        batch: list[Request] = []
        rows = nbytes = 0
        merge, max_bytes = self._policy.merge, self._policy.max_batch_bytes
        for request in bucket:
            if batch and (rows + request.rows > limit or nbytes + request.nbytes > max_bytes):
                break
            batch.append(request)
            rows += request.rows
            nbytes += request.nbytes
            if rows >= limit or not merge:
                break
        for request in batch:
            del bucket[request]
        bucket.rows -= rows
        self.requests -= len(batch)
        self.nbytes -= nbytes
        self._after_removal(key, bucket, head_changed=True)
        return batch

    def _remove(self, bucket: Bucket[Request], request: Request) -> None:
        del bucket[request]
        bucket.rows -= request.rows
        self.requests -= 1
        self.nbytes -= request.nbytes

    def _after_removal(self, key: Hashable, bucket: Bucket[Request], *, head_changed: bool) -> None:
        if not bucket:
            del self._buckets[key]
            if not self._buckets:
                self._oldest.clear()
        elif head_changed:
            self._note_head(key, next(iter(bucket.values())))

    def _note_head(self, key: Hashable, arrived_us: int) -> None:
        self._sequence += 1
        heapq.heappush(self._oldest, (arrived_us, self._sequence, key))
        if len(self._oldest) > 2 * len(self._buckets) + MAX_STALE:
            # while one old head stays, those that come and go behind it are never met
            self._oldest = [
                (next(iter(bucket.values())), number, key)
                for number, (key, bucket) in enumerate(self._buckets.items())
            ]
            heapq.heapify(self._oldest)

    def _head(self) -> tuple[int, int, Hashable]:
        """The heap's entry of the bucket whose head is the oldest request of all."""
        while True:
            entry = self._oldest[0]
            bucket = self._buckets.get(entry[2])
            if bucket is not None and next(iter(bucket.values())) == entry[0]:
                return entry
            heapq.heappop(self._oldest)


def _prefix_sums_to(bucket: Bucket[Request], rows: int) -> bool:
    """Whether the oldest requests have exactly `rows` rows together: batches are never cut within a request."""
    total = 0
    for request in bucket:
        total += request.rows
        if total >= rows:
            break
    return total == rows
