"""One request against all limits that are its. It waits for nothing, and costs a microsecond or two.

A request is checked against every limit first, and charged to them only when all let it pass: one that is refused costs
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from penstock.access import quota_refusals
from penstock.access.quota_refusals import Excess
from penstock.access.quota_scope import Costs, QuotaScope
from penstock.access.usage import Usage
from penstock.errors import PenstockError, QuotaExceeded


class Share(Protocol):
    """This server's part of a rate that several share."""

    @property
    def kind(self) -> int:
        """Of what."""
        ...

    def missing_ns(self, tokens: int, now_ns: int) -> float:
        """In how many nanoseconds it should have so many tokens; 0: now."""
        ...

    def take(self, tokens: int) -> None:
        """Take them."""
        ...


class Sharing(Protocol):
    """Shares quotas with other servers, in the background."""

    def shares(self, scope: QuotaScope) -> tuple[Share, ...]:
        """The scope's rates as far as they are shared."""
        ...

    def used(self, scope: QuotaScope) -> None:
        """Something was taken or given back, or was not there: let the others know, and ask for more."""
        ...

    def configured(self, scopes: Mapping[tuple[str, str], QuotaScope]) -> None:
        """These are the scopes from now on, or their limits have changed."""
        ...

    @property
    def problem(self) -> PenstockError | None:
        """Why no request that has a limit may pass now."""
        ...

    @property
    def open(self) -> bool:
        """Let all requests pass, and only count them."""
        ...


class Lease:
    """What a request holds until it is answered: a place among those in flight, and its bytes."""

    __slots__ = ("_nbytes", "_plan")

    def __init__(self, plan: QuotaPlan, nbytes: int) -> None:
        self._plan: QuotaPlan | None = plan
        self._nbytes = nbytes

    def release(self) -> None:
        """Give it back. A second time does nothing."""
        plan, self._plan = self._plan, None
        if plan is not None:
            for scope in plan.held:
                scope.in_flight -= 1
                scope.queued -= self._nbytes
            if plan.sharing is not None:
                plan.tell()


class QuotaPlan:
    """All limits of a tenant's requests for one model: made once, for as long as the limits stay the same."""

    __slots__ = (
        "_day_left_s",
        "buckets",
        "days",
        "held",
        "limited",
        "scopes",
        "shares",
        "sharing",
        "usage",
    )

    def __init__(
        self,
        usage: Usage,
        scopes: tuple[QuotaScope, ...],
        sharing: Sharing | None,
        day_left_s: Callable[[], float],
    ) -> None:
        """`scopes`: those whose pattern fits the model. `day_left_s`: seconds until daily totals begin anew."""
        self._day_left_s = day_left_s
        self.usage: Final = usage
        self.scopes: Final = scopes
        self.buckets: Final = tuple(bucket for scope in scopes for bucket in scope.limiting())
        self.held: Final = tuple(scope for scope in scopes if scope.limits_held)
        self.days: Final = tuple(scope for scope in scopes if scope.limits_day)
        self.limited: Final = bool(self.buckets or self.held or self.days)
        self.sharing: Final = sharing if self.limited else None
        self.shares: Final[tuple[Share, ...]] = (
            () if sharing is None else tuple(s for scope in scopes for s in sharing.shares(scope))
        )

    def admit(self, rows: int, nbytes: int, now_ns: int) -> Lease | None:
        """Check all limits, then charge the request to them. Raises QuotaExceeded."""
        costs = 1, rows, nbytes
        drained: list[int] = []
        for bucket in self.buckets:
            # as `TokenBucket.missing_ns` and `take`, without a call for each
            now = now_ns * bucket.units_per_ns
            before = bucket.drained
            after = (before if before > now else now) + costs[bucket.kind] * bucket.units_per_token
            if after - now > bucket.units_per_burst:
                raise self._refusal(costs, now_ns)
            drained.append(after)
        for scope in self.held:
            if scope.in_flight >= scope.max_in_flight or scope.queued + nbytes > scope.max_queued:
                raise self._refusal(costs, now_ns)
        for scope in self.days:
            used, most = scope.day, scope.max_day
            if used[0] >= most[0] or used[1] + rows > most[1] or used[2] + nbytes > most[2]:
                raise self._refusal(costs, now_ns)
        if self.sharing is not None:
            self._share(costs, now_ns)
        for bucket, after in zip(self.buckets, drained):  # noqa: B905 - equal by construction
            bucket.drained = after
        return self.charge(rows, nbytes)

    def charge(self, rows: int, nbytes: int) -> Lease | None:
        """Count a request that is admitted, but for its tokens."""
        usage = self.usage
        usage.requests += 1
        usage.rows += rows
        usage.nbytes += nbytes
        for scope in self.days:
            day = scope.day
            day[0] += 1
            day[1] += rows
            day[2] += nbytes
        if not self.held:
            return None
        for scope in self.held:
            scope.in_flight += 1
            scope.queued += nbytes
        return Lease(self, nbytes)

    def _share(self, costs: Costs, now_ns: int) -> None:
        """The same for what this server shares with others."""
        for share in self.shares:
            if share.missing_ns(costs[share.kind], now_ns):
                raise self._refusal(costs, now_ns)
        for share in self.shares:
            share.take(costs[share.kind])
        self.tell()

    def tell(self) -> None:
        """Have the other servers know."""
        assert self.sharing is not None
        for scope in self.scopes:
            self.sharing.used(scope)

    def _refusal(self, costs: Costs, now_ns: int) -> QuotaExceeded:
        self.usage.refused += 1
        if self.sharing is not None:
            self.tell()
        excesses = [
            *self._rates_exceeded(costs, now_ns),
            *self._held_exceeded(costs),
            *self._days_exceeded(costs),
        ]
        return quota_refusals.refusal(excesses)

    def _rates_exceeded(self, costs: Costs, now_ns: int) -> list[Excess]:
        found: list[Excess] = []
        for bucket in self.buckets:
            if wait_ns := bucket.missing_ns(costs[bucket.kind], now_ns):
                left = bucket.remaining(now_ns)
                found.append(quota_refusals.of_bucket(bucket, costs, wait_ns, left, now_ns))
        for bucket, share in zip(self.buckets, self.shares):  # noqa: B905 - none, or one a bucket
            if wait_ns := share.missing_ns(costs[share.kind], now_ns):
                # the other servers have had it
                found.append(quota_refusals.of_bucket(bucket, costs, wait_ns, 0, now_ns))
        return found

    def _held_exceeded(self, costs: Costs) -> list[Excess]:
        found: list[Excess] = []
        nbytes = costs[2]
        for scope in self.held:
            in_flight, queued = scope.limits.in_flight, scope.limits.queued_bytes
            if in_flight is not None and scope.in_flight >= scope.max_in_flight:
                found.append(quota_refusals.of_flight(scope, in_flight))
            if queued is not None and scope.queued + nbytes > scope.max_queued:
                found.append(quota_refusals.of_queued(scope, queued, nbytes))
        return found

    def _days_exceeded(self, costs: Costs) -> list[Excess]:
        found: list[Excess] = []
        ends_s = self._day_left_s()
        for scope in self.days:
            for kind, limit in enumerate(scope.day_limits):
                if limit is not None and scope.day[kind] + costs[kind] > scope.max_day[kind]:
                    found.append(quota_refusals.of_day(scope, kind, costs[kind], limit, ends_s))
        return found
