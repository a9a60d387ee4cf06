"""What one tenant has used of the limits that it has for the models of one pattern."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Final

from penstock.access.limits import Limits
from penstock.access.token_bucket import TokenBucket

REQUESTS, ROWS, BYTES = range(3)
WHAT: Final = ("requests", "rows", "bytes")
"""What is counted, in the order of all tuples here."""

Costs = tuple[int, int, int]
"""Of a request: 1, its rows, its bytes."""


class KindBucket(TokenBucket):
    """A bucket that knows what its tokens are, and whose."""

    __slots__ = ("kind", "scope")

    def __init__(self, scope: QuotaScope, kind: int, rate: float, burst: float) -> None:
        super().__init__(rate, burst)
        self.scope = scope
        self.kind = kind


class QuotaScope:
    """A tenant's limits for one pattern of models, and what is used of them. Its numbers are changed by `QuotaPlan`."""

    __slots__ = (
        "buckets",
        "day",
        "id",
        "in_flight",
        "limits",
        "max_day",
        "max_in_flight",
        "max_queued",
        "pattern",
        "queued",
        "tenant",
    )

    def __init__(self, tenant: str, pattern: str) -> None:
        self.tenant: Final = tenant
        self.pattern: Final = pattern
        self.id: Final = f"{tenant}/{pattern}"
        """A tenant's name has no slash."""
        self.limits = Limits()
        self.buckets: dict[int, KindBucket] = {}
        """By kind: those that have a rate."""
        self.in_flight = 0
        self.queued = 0
        """Bytes of the requests in flight."""
        self.day = [0, 0, 0]
        """What was used today, by kind."""
        self.max_in_flight: float = inf
        """Up to here this server may go. The limit itself, or this server's part of it where replicas share it."""
        self.max_queued: float = inf
        self.max_day: list[float] = [inf, inf, inf]

    def configure(self, limits: Limits, now_ns: int) -> None:
        """Other limits from now on. What was used stays used."""
        self.limits = limits
        for kind, (rate, burst) in enumerate(rates(limits)):
            bucket = self.buckets.get(kind)
            if rate is None:
                # forgotten only when there is nothing to forget: to take a limit away and set it again is no refill
                if bucket is not None and bucket.empty_ns(now_ns) == 0:
                    del self.buckets[kind]
            elif bucket is None:
                self.buckets[kind] = KindBucket(self, kind, rate, burst)
            elif (bucket.rate, bucket.burst) != (rate, burst):
                bucket.change(rate, burst, now_ns)
        self.whole()

    def whole(self) -> None:
        """This server may use all of each limit."""
        self.max_in_flight = _or_inf(self.limits.in_flight)
        self.max_queued = _or_inf(self.limits.queued_bytes)
        self.whole_day()

    def whole_day(self) -> None:
        """The same of the limits by day."""
        self.max_day = [_or_inf(limit) for limit in self.day_limits]

    @property
    def day_limits(self) -> tuple[int | None, int | None, int | None]:
        """By kind."""
        limits = self.limits
        return limits.requests_per_day, limits.rows_per_day, limits.bytes_per_day

    @property
    def limits_day(self) -> bool:
        """Whether anything is limited by day."""
        return any(limit is not None for limit in self.day_limits)

    @property
    def limits_held(self) -> bool:
        """Whether what is in flight is limited."""
        return self.limits.in_flight is not None or self.limits.queued_bytes is not None

    def limiting(self) -> Iterator[KindBucket]:
        """The buckets of limits that hold now."""
        for kind, (rate, _) in enumerate(rates(self.limits)):
            if rate is not None:
                yield self.buckets[kind]

    def idle(self, now_ns: int) -> bool:
        """It holds nothing that would be lost with it."""
        return self.in_flight == 0 and all(not b.empty_ns(now_ns) for b in self.buckets.values())


def rates(limits: Limits) -> tuple[tuple[float | None, float], ...]:
    """Rate and burst by kind. A burst that isn't given is what a second allows, but at least one."""
    given = (
        (limits.requests_per_s, limits.burst_requests),
        (limits.rows_per_s, limits.burst_rows),
        (limits.bytes_per_s, limits.burst_bytes),
    )
    return tuple(
        (rate, 0.0 if rate is None else max(1.0, rate) if burst is None else burst)
        for rate, burst in given
    )


def _or_inf(limit: int | None) -> float:
    return inf if limit is None else limit
