"""Quotas: how much each tenant may ask for, and what is used of it. All of it runs on the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from penstock.access.limits import Limits
from penstock.access.quota_plan import Lease, QuotaPlan, Sharing
from penstock.access.quota_scope import QuotaScope
from penstock.access.token_bucket import NS_PER_S
from penstock.access.usage import SECONDS_PER_DAY, UsageBook, UsageRow, fits

MAX_PLANS: Final = 4096
"""Models of one tenant whose limits are remembered."""
LOOK_S: Final = 0.2
"""From one look at what day it is, and whether limits have changed, to the next. Only requests make one look."""

LimitsOf = Mapping[tuple[str, str], Limits]
"""(tenant, pattern of models) → limits."""


class TenantQuota:
    """One tenant's limits and use."""

    def __init__(self, keeper: QuotaKeeper, tenant: str) -> None:
        self.tenant: Final = tenant
        self._keeper: Final = keeper
        self._plans: dict[str, QuotaPlan] = {}
        self._generation = -1

    def admit(self, model: str, rows: int, nbytes: int, now_ns: int) -> Lease | None:
        """Let a request pass, which is then charged for; None: it holds nothing that has to be given back.

        `now_ns`: of the monotonic clock. Raises QuotaExceeded, which costs nothing; Unavailable where limits are kept
        elsewhere, and it is configured that nobody passes while they can't be asked.
        """
        keeper = self._keeper
        if now_ns >= keeper.look_ns:
            keeper.look(now_ns)
        plan = self._plans.get(model)
        if plan is None or self._generation != keeper.generation:
            plan = self._plan(model)
        if not plan.limited:
            usage = plan.usage
            usage.requests += 1
            usage.rows += rows
            usage.nbytes += nbytes
            return None
        if plan.sharing is not None:
            if plan.sharing.open:
                return plan.charge(rows, nbytes)
            if plan.sharing.problem is not None:
                plan.usage.refused += 1
                raise plan.sharing.problem
        return plan.admit(rows, nbytes, now_ns)

    def _plan(self, model: str) -> QuotaPlan:
        if self._generation != self._keeper.generation or len(self._plans) >= MAX_PLANS:
            self._plans.clear()
            self._generation = self._keeper.generation
        plan = self._plans[model] = self._keeper.plan(self.tenant, model)
        return plan


class QuotaKeeper:
    """All tenants' quotas, as one server keeps them."""

    def __init__(
        self,
        now_ns: int,
        wall: Callable[[], float] = time.time,
        on_look: Callable[[int], None] = lambda now_ns: None,
    ) -> None:
        """`wall`: Unix seconds, which say what day it is. `on_look`: looks whether there are other limits."""
        self._on_look = on_look
        self._wall = wall
        self._tenants: dict[str, TenantQuota] = {}
        self._scopes: dict[tuple[str, str], QuotaScope] = {}
        self._of_tenant: dict[str, list[QuotaScope]] = {}
        self._sharing: Sharing | None = None
        self.generation = 0
        """Another one whenever limits have changed."""
        self.usage: Final = UsageBook(self._day())
        self.look_ns = now_ns
        """When to look again, on the monotonic clock."""

    def of(self, tenant: str) -> TenantQuota:
        """The tenant's quota. Who has no limits has one too, for his use is counted."""
        quota = self._tenants.get(tenant)
        if quota is None:
            quota = self._tenants[tenant] = TenantQuota(self, tenant)
        return quota

    def set_limits(self, limits: LimitsOf, now_ns: int) -> None:
        """These are all limits from now on. What was used stays used."""
        self.turn_day()
        gone = [scope for key, scope in self._scopes.items() if key not in limits]
        changed = [self._change(scope, Limits(), now_ns) for scope in gone]
        for scope in gone:
            if scope.idle(now_ns):
                self._forget(scope)
        changed += [
            self._change(self._scope(tenant, pattern), of, now_ns)
            for (tenant, pattern), of in limits.items()
        ]
        if any(changed):
            self.generation += 1
            if self._sharing is not None:
                self._sharing.configured(self._scopes)

    def share(self, sharing: Sharing) -> None:
        """Share all limits with other servers from now on."""
        self._sharing = sharing
        self.generation += 1
        sharing.configured(self._scopes)

    def restore(self, rows: list[UsageRow]) -> None:
        """What was used today before this server started counts too."""
        self.usage.restore(rows)
        for scope in self._scopes.values():
            if scope.limits_day:
                scope.day = self.usage.today(scope.tenant, scope.pattern)

    def plan(self, tenant: str, model: str) -> QuotaPlan:
        """What a request of the tenant for the model is checked against."""
        usage = self.usage.of(tenant, model)
        fitting = tuple(
            scope for scope in self._of_tenant.get(tenant, ()) if fits(model, scope.pattern)
        )
        return QuotaPlan(usage, fitting, self._sharing, self.day_left_s)

    def look(self, now_ns: int) -> None:
        """Look what day it is, and what limits there are."""
        # until midnight, if that is earlier
        self.look_ns = now_ns + int(min(max(self.day_left_s(), 0.001), LOOK_S) * NS_PER_S)
        self.turn_day()
        self._on_look(now_ns)

    def turn_day(self) -> None:
        """Daily totals begin anew when it is another day."""
        day = self._day()
        # a clock that was set back a little doesn't bring yesterday back; one that was wrong by far is put right: else
        # totals that are used up would stay so until the wrong day is over
        if day > self.usage.day or day < self.usage.day - 1:
            self.usage.turn(day)
            for scope in self._scopes.values():
                scope.day = [0, 0, 0]
                scope.whole_day()

    def day_left_s(self) -> float:
        """Seconds until daily totals begin anew."""
        return (self.usage.day + 1) * SECONDS_PER_DAY - self._wall()

    def in_flight(self, tenant: str, pattern: str = "*") -> int:
        """Requests in flight that a limit of this pattern counts."""
        scope = self._scopes.get((tenant, pattern))
        return 0 if scope is None else scope.in_flight

    def _scope(self, tenant: str, pattern: str) -> QuotaScope:
        scope = self._scopes.get((tenant, pattern))
        if scope is None:
            scope = self._scopes[tenant, pattern] = QuotaScope(tenant, pattern)
            self._of_tenant.setdefault(tenant, []).append(scope)
        return scope

    def _forget(self, scope: QuotaScope) -> None:
        del self._scopes[scope.tenant, scope.pattern]
        of_tenant = self._of_tenant[scope.tenant]
        of_tenant.remove(scope)
        if not of_tenant:
            del self._of_tenant[scope.tenant]

    def _change(self, scope: QuotaScope, limits: Limits, now_ns: int) -> bool:
        """Whether it has other limits now than before."""
        if scope.limits == limits:
            return False
        counted_day = scope.limits_day
        scope.configure(limits, now_ns)
        if scope.limits_day and not counted_day:
            scope.day = self.usage.today(scope.tenant, scope.pattern)
        return True

    def _day(self) -> int:
        return int(self._wall() // SECONDS_PER_DAY)
