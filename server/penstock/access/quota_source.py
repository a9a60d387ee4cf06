"""The store of tenants, as quotas see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.access.limits import Limits
from penstock.access.tenant_records import Usage
from penstock.access.tenants import TenantStore
from penstock.access.usage import UsageRow


class StoredTenants:
    """As `TenantSource` says."""

    def __init__(self, store: TenantStore) -> None:
        self._store = store

    @property
    def generation(self) -> int:
        """As `TenantSource` says."""
        return self._store.generation

    def refresh(self, now: float) -> None:
        """As `TenantSource` says."""
        self._store.refresh(now)

    def limits(self) -> Mapping[tuple[str, str], Limits]:
        """As `TenantSource` says."""
        return self._store.snapshot.limits

    def weights(self) -> Mapping[str, float]:
        """As `TenantSource` says."""
        return self._store.snapshot.weights

    def add_usage(self, rows: Iterable[UsageRow]) -> None:
        """As `TenantSource` says."""
        self._store.add_usage(
            Usage(
                tenant=row.tenant,
                model=row.model,
                day=row.day,
                requests=row.requests,
                rows=row.rows,
                bytes=row.nbytes,
            )
            for row in rows
        )

    def usage_of(self, day: int) -> list[UsageRow]:
        """As `TenantSource` says."""
        return [
            UsageRow(kept.tenant, kept.model, kept.day, kept.requests, kept.rows, kept.bytes)
            for kept in self._store.usage(since_day=day)
            if kept.day == day
        ]
