"""The store of tenants: what may be changed, and the snapshot that decisions are made from.

A server looks whether there was a change when a request asks, at most every 200 ms: that is one number in memory that
all who have the file open share, no read. What was changed meanwhile is then read at once and whole. Changes by a
command line and those over HTTP go the same way, so that all servers of a machine learn of them alike.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from penstock.access import tenant_rows as rows
from penstock.access.key_table import KeyTable
from penstock.access.limits import ALL_MODELS, Limits, parse_limits
from penstock.access.tenant_database import TenantDatabase
from penstock.access.tenant_records import (
    SECONDS_A_DAY,
    Tenant,
    TenantSnapshot,
    Usage,
    check_patterns,
    check_tenant_name,
    check_weight,
)
from penstock.access.tenant_watch import TenantWatch
from penstock.errors import AlreadyExists, NotFound

USAGE_DAYS: Final = 400
"""How long usage is kept: a year, and some time to bill it."""


class TenantStore:
    """One file. Any thread may make changes, which wait for the disk; `refresh` and `snapshot` are the event loop's."""

    def __init__(
        self, path: Path, *, create: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises ConfigError for a file that can't be used, Unavailable for one that can't be now."""
        self._clock = clock
        self._database = TenantDatabase(path, create=create)
        self.keys: Final = KeyTable(self._database, clock)
        try:
            self._watch = TenantWatch(path)
        except BaseException:
            self._database.close()
            raise

    @property
    def snapshot(self) -> TenantSnapshot:
        """What was known at the last look."""
        return self._watch.snapshot

    @property
    def generation(self) -> int:
        """Another one whenever the snapshot is another one."""
        return self._watch.generation

    def refresh(self, now: float) -> bool:
        """Look for changes, at most every 200 ms of the caller's clock; whether there is a new snapshot."""
        return self._watch.refresh(now)

    def close(self) -> None:
        """What is changed is on the disk already."""
        self._watch.close()
        self._database.close()

    # ── tenants ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def create(
        self, name: str, *, models: tuple[str, ...] = ("*",), weight: float | None = None
    ) -> Tenant:
        """A new tenant. Raises InvalidRequest, AlreadyExists."""
        tenant = Tenant(
            name=check_tenant_name(name),
            created_at=self._clock(),
            weight=check_weight(weight),
            models=check_patterns(models),
        )
        with self._database.change() as connection:
            if connection.execute("SELECT 1 FROM tenants WHERE name = ?", (name,)).fetchone():
                raise AlreadyExists(f"there is a tenant '{name}' already")
            rows.insert_tenant(connection, tenant)
            connection.execute("DELETE FROM deleted_tenants WHERE name = ?", (name,))
        return tenant

    def change(
        self,
        name: str,
        *,
        disabled: bool | None = None,
        weight: float | UnsetType | None = UNSET,
        models: tuple[str, ...] | None = None,
        captured: tuple[str, ...] | None = None,
    ) -> Tenant:
        """Change what is given, all at once. Raises NotFound, InvalidRequest; then nothing is changed.

        `disabled`: whether all that is asked in the tenant's name is refused. `weight`: its share of a busy model;
        None: as if nobody had said. `models`: patterns of those that it may reach at all. `captured`: patterns of those
        of which it allows that its requests are kept; empty: of none.
        """
        if weight is not UNSET:
            check_weight(weight)
        patterns = None if models is None else check_patterns(models)
        allowed = check_patterns(captured) if captured else captured
        with self._database.change() as connection:
            tenant = rows.find_tenant(connection, name)
            changed = replace(
                tenant,
                disabled=tenant.disabled if disabled is None else disabled,
                weight=tenant.weight if weight is UNSET else weight,
                models=patterns or tenant.models,
                captured=tenant.captured if allowed is None else allowed,
            )
            rows.update_tenant(connection, changed)
        return changed

    def delete(self, name: str) -> None:
        """With its keys, limits and usage: whoever gets the name next starts anew. Until then nobody gets in by it, not
        by a token or a certificate either. Raises NotFound."""
        with self._database.change() as connection:
            rows.find_tenant(connection, name)
            connection.execute("DELETE FROM tenants WHERE name = ?", (name,))
            connection.execute("DELETE FROM usage WHERE tenant = ?", (name,))
            connection.execute("INSERT INTO deleted_tenants VALUES (?)", (name,))

    def read(self) -> TenantSnapshot:
        """All tenants, keys and limits as they are now, for whoever has time to read."""
        with self._database.reading() as connection:
            return rows.read_snapshot(connection)

    # ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def set_limits(
        self, tenant: str, values: Mapping[str, object], models: str = ALL_MODELS
    ) -> Limits:
        """Set those that are named, None clears one; the others stay. Returns all that hold then.

        Raises NotFound, InvalidRequest. Then nothing is changed.
        """
        check_patterns((models,))
        with self._database.change() as connection:
            rows.find_tenant(connection, tenant)
            known = rows.find_limits(connection, tenant, models)
            limits = parse_limits({**known.given(), **values})
            _write_limits(connection, tenant, models, limits)
        return limits

    def clear_limits(self, tenant: str, models: str | None = None) -> None:
        """Of one pattern, or all of the tenant's. Raises NotFound."""
        with self._database.change() as connection:
            rows.find_tenant(connection, tenant)
            found = connection.execute(
                "DELETE FROM limits WHERE tenant = ? AND models = coalesce(?, models)",
                (tenant, models),
            )
            if models is not None and not found.rowcount:
                raise NotFound(f"tenant '{tenant}' has no limits for the models '{models[:160]}'")

    # ── usage ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def add_usage(self, usage: Iterable[Usage]) -> None:
        """Add to what is counted. Servers need not look: it is no change for them."""
        values = [(u.tenant, u.model, u.day, u.requests, u.rows, u.bytes) for u in usage]
        today = int(self._clock() // SECONDS_A_DAY)
        with self._database.transaction() as connection:
            connection.executemany(_ADD_USAGE, values)
            connection.execute("DELETE FROM usage WHERE day < ?", (today - USAGE_DAYS,))

    def usage(self, tenant: str | None = None, since_day: int = 0) -> tuple[Usage, ...]:
        """Of one tenant or all, from that day (since 1970, UTC) on: by tenant, day and model."""
        with self._database.reading() as connection:
            return tuple(rows.read_usage(connection, tenant, since_day))


_ADD_USAGE: Final = """
INSERT INTO usage (tenant, model, day, requests, rows, bytes) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    requests = requests + excluded.requests, rows = rows + excluded.rows, bytes = bytes + excluded.bytes
"""


def _write_limits(connection: sqlite3.Connection, tenant: str, models: str, limits: Limits) -> None:
    connection.execute("DELETE FROM limits WHERE tenant = ? AND models = ?", (tenant, models))
    connection.executemany(
        "INSERT INTO limits (tenant, models, kind, value) VALUES (?, ?, ?, ?)",
        [(tenant, models, kind, value) for kind, value in limits.given().items()],
    )
