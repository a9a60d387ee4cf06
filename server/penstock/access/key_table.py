"""API keys of the store: made, listed, rotated, revoked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from penstock.access import tenant_rows as rows
from penstock.access.api_keys import PREFIX, make_key
from penstock.access.tenant_database import TenantDatabase
from penstock.access.tenant_records import ApiKey, check_label, check_patterns, check_roles
from penstock.errors import InvalidRequest

DEFAULT_ROLES: Final = ("user",)
MOST_KEYS: Final = 1000
"""Of one tenant, with those that have ended, which are …"""
KEPT_S: Final = 90 * 86_400.0
"""… forgotten after this long."""
LONGEST_LIFETIME_S: Final = 100 * 365.25 * 86_400


class CreatedKey(NamedTuple):
    """A new key. Its text is known only now."""

    key: ApiKey
    text: str

    def __repr__(self) -> str:
        return f"CreatedKey(key={self.key!r})"


class KeyTable:
    """Of one store. Any thread may call."""

    def __init__(self, database: TenantDatabase, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def create(
        self,
        tenant: str,
        *,
        roles: tuple[str, ...] = DEFAULT_ROLES,
        models: tuple[str, ...] = ("*",),
        label: str = "",
        lifetime_s: float | None = None,
    ) -> CreatedKey:
        """A new key. Without a lifetime it never expires. Raises NotFound for the tenant, InvalidRequest."""
        now = self._clock()
        created = _new_key(
            ApiKey(
                id="",
                tenant=tenant,
                salt=b"",
                hash=b"",
                roles=check_roles(roles),
                models=check_patterns(models),
                label=check_label(label),
                created_at=now,
                expires_at=_expiry(now, lifetime_s),
            )
        )
        with self._database.change() as connection:
            rows.find_tenant(connection, tenant)
            _make_room(connection, tenant, now)
            rows.insert_key(connection, created.key)
        return created

    def rotate(
        self, tenant: str, key_id: str, *, overlap_s: float, lifetime_s: float | None = None
    ) -> CreatedKey:
        """A new key like this one, which goes on for the overlap, if it has so long.

        Without a lifetime the new one lives as long as the old one was made for.
        Raises NotFound, and InvalidRequest for a key that does not work any more.
        """
        now = self._clock()
        if not 0 <= overlap_s <= LONGEST_LIFETIME_S:
            raise InvalidRequest(f"an overlap is from 0 s to 100 years, got {overlap_s!r} s")
        with self._database.change() as connection:
            old = rows.find_key(connection, tenant, key_id)
            if (state := old.state(now)) != "active":
                raise InvalidRequest(
                    f"key '{PREFIX}{key_id}' is {state}: there is nothing to rotate, create a new one"
                )
            if lifetime_s is None and old.expires_at:
                lifetime_s = old.expires_at - old.created_at
            created = _new_key(_successor(old, now, lifetime_s))
            # 0 would be never
            until = max(now + overlap_s, 1e-6)
            ends = min(until, old.expires_at) if old.expires_at else until
            _make_room(connection, tenant, now)
            rows.insert_key(connection, created.key)
            connection.execute("UPDATE api_keys SET expires_at = ? WHERE id = ?", (ends, key_id))
        return created

    def revoke(self, tenant: str, key_id: str) -> ApiKey:
        """It works no more, at once and for ever. Raises NotFound."""
        with self._database.change() as connection:
            key = rows.find_key(connection, tenant, key_id)
            if not key.revoked_at:
                connection.execute(
                    "UPDATE api_keys SET revoked_at = ? WHERE id = ?", (self._clock(), key_id)
                )
            return rows.find_key(connection, tenant, key_id)

    def note_used(self, days: Mapping[str, int]) -> None:
        """The day on which each key was last used. Servers need not look: it is no change for them."""
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE api_keys SET last_used_day = max(last_used_day, ?) WHERE id = ?",
                [(day, key_id) for key_id, day in days.items()],
            )


def _make_room(connection: sqlite3.Connection, tenant: str, now: float) -> None:
    """Servers keep all keys in memory. Raises InvalidRequest when a tenant has as many as it may have."""
    connection.execute(
        "DELETE FROM api_keys WHERE tenant = ?1"
        " AND (revoked_at BETWEEN 1 AND ?2 OR expires_at BETWEEN 1 AND ?2)",
        (tenant, now - KEPT_S),
    )
    (count,) = connection.execute(
        "SELECT count(*) FROM api_keys WHERE tenant = ?", (tenant,)
    ).fetchone()
    if count >= MOST_KEYS:
        raise InvalidRequest(f"tenant '{tenant}' has {count} keys, more can't be")


def _new_key(blank: ApiKey) -> CreatedKey:
    """The key, with an id and a secret."""
    made = make_key()
    return CreatedKey(replace(blank, id=made.id, salt=made.salt, hash=made.hash), made.text)


def _successor(old: ApiKey, now: float, lifetime_s: float | None) -> ApiKey:
    return replace(
        old,
        created_at=now,
        expires_at=_expiry(now, lifetime_s),
        last_used_day=0,
    )


def _expiry(now: float, lifetime_s: float | None) -> float:
    if lifetime_s is None:
        return 0.0
    if not 0 < lifetime_s <= LONGEST_LIFETIME_S:
        raise InvalidRequest(
            f"a key lives for more than 0 s and up to 100 years, got {lifetime_s!r} s"
        )
    return now + lifetime_s
