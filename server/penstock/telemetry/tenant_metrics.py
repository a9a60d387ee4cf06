"""Metrics by tenant, of which there may be thousands: those with the most requests have their own, others share one.

Each increase is shown once: under the tenant's own name if the tenant is among the first when it is read, else under
`other`. So no counter ever falls, whoever comes and goes among the first, and all of them together rise by as much as
there was. A tenant that comes back goes on from where its counter was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from math import exp2
from typing import Final, NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

OTHER: Final = "other"
"""A tenant of this name is one of them, always."""
HALF_LIFE_S: Final = 600.0
"""In which a request loses half of its weight among those that say who is first."""
LEAD: Final = 1.25
"""By how much more who is not among the first has to have, so that two of about the same don't take turns."""


class TenantCounts(NamedTuple):
    """Of one tenant, or of all others, since the start."""

    requests: int = 0
    rows: int = 0
    nbytes: int = 0
    refused: int = 0

    def plus(self, more: TenantCounts) -> TenantCounts:
        """The sum."""
        return TenantCounts(*(a + b for a, b in zip(self, more, strict=True)))

    def minus(self, less: TenantCounts) -> TenantCounts:
        """The difference."""
        return TenantCounts(*(a - b for a, b in zip(self, less, strict=True)))


NAMES: Final = (
    ("penstock_tenant_requests", "Requests that a tenant's quotas let pass"),
    ("penstock_tenant_rows", "Rows of the requests that a tenant's quotas let pass"),
    ("penstock_tenant_bytes", "Bytes of the requests that a tenant's quotas let pass"),
    ("penstock_tenant_refused", "Requests that were over one of a tenant's quotas"),
)
"""In the order of TenantCounts, without `_total`."""


SHARING_NAME: Final = "penstock_quota_sharing"
SHARING_HELP: Final = "Whether Redis, which quotas are shared through, answers"


class TopTenants:
    """Says under which name each increase is shown."""

    def __init__(self, most: int) -> None:
        """`most`: how many tenants have a name of their own."""
        self._most = most
        self._seen: dict[str, TenantCounts] = {}
        self._shown: dict[str, TenantCounts] = {OTHER: TenantCounts()}
        self._scores: dict[str, float] = {}
        self._first: set[str] = set()
        self._at_s: float | None = None

    def update(
        self, counts: Iterable[tuple[str, TenantCounts]], now_s: float
    ) -> dict[str, TenantCounts]:
        """What to show now: by name, the first ones and `other`."""
        faded = 1.0 if self._at_s is None else exp2(-max(0.0, now_s - self._at_s) / HALF_LIFE_S)
        self._at_s = now_s
        increases: dict[str, TenantCounts] = {}
        for tenant, total in counts:
            more = increases[tenant] = total.minus(self._seen.get(tenant, TenantCounts()))
            self._seen[tenant] = total
            asked = more.requests + more.refused
            self._scores[tenant] = self._scores.get(tenant, 0.0) * faded + asked
        self._first = self._choose()
        for tenant, more in increases.items():
            name = tenant if tenant in self._first else OTHER
            self._shown[name] = self._shown.get(name, TenantCounts()).plus(more)
        return {name: self._shown[name] for name in (*sorted(self._first), OTHER)}

    def _choose(self) -> set[str]:
        def score(tenant: str) -> tuple[float, str]:
            return self._scores[tenant] * (LEAD if tenant in self._first else 1.0), tenant

        known = (tenant for tenant in self._scores if tenant != OTHER)
        return set(sorted(known, key=score, reverse=True)[: self._most])


class TenantMetrics:
    """Families of the metrics page."""

    def __init__(
        self,
        counts: Callable[[], Iterable[tuple[str, TenantCounts]]],
        most: int,
        sharing: Callable[[], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sharing`: whether quotas are shared with other servers now; None: they never are."""
        self._counts = counts
        self._top = TopTenants(most)
        self._sharing = sharing
        self._clock = clock

    def families(self) -> Iterator[Metric]:
        """As they are now."""
        shown = self._top.update(self._counts(), self._clock())
        for index, (name, text) in enumerate(NAMES):
            family = CounterMetricFamily(name, text, labels=["tenant"])
            for tenant, counts in shown.items():
                family.add_metric([tenant], counts[index])
            yield family
        if self._sharing is not None:
            yield GaugeMetricFamily(SHARING_NAME, SHARING_HELP, float(self._sharing()))
