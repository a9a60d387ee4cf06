"""What tenants have used, for the metrics page."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.access.quota_service import QuotaService
from penstock.quota_config import QuotaSettings
from penstock.telemetry.tenant_metrics import TenantCounts, TenantMetrics


def tenant_metrics(quotas: QuotaService, settings: QuotaSettings) -> TenantMetrics:
    """The families that show it."""
    sharing = quotas.sharing
    return TenantMetrics(
        lambda: _counts(quotas),
        settings.usage_top_k,
        None if sharing is None else lambda: not sharing.away,
    )


def _counts(quotas: QuotaService) -> Iterable[tuple[str, TenantCounts]]:
    """By tenant, of all models."""
    sums: dict[str, TenantCounts] = {}
    for usage in quotas.keeper.usage:
        counts = TenantCounts(*usage.counts, usage.refused)
        sums[usage.tenant] = sums.get(usage.tenant, TenantCounts()).plus(counts)
    return sums.items()
