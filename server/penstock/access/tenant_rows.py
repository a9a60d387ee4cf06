"""Rows of the file of tenants ↔ records."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec

from penstock.access.api_keys import PREFIX
from penstock.access.limits import WHOLE, Limits
from penstock.access.tenant_records import ApiKey, Tenant, TenantSnapshot, Usage
from penstock.errors import NotFound


def read_snapshot(connection: sqlite3.Connection) -> TenantSnapshot:
    """All but the usage. The caller's transaction makes it one moment's."""
    return TenantSnapshot(
        revision=read_revision(connection),
        tenants={tenant.name: tenant for tenant in _tenants(connection)},
        deleted=frozenset(n for (n,) in connection.execute("SELECT name FROM deleted_tenants")),
        keys={key.id: key for key in _keys(connection)},
        limits=_limits(connection),
    )


def read_revision(connection: sqlite3.Connection) -> int:
    """Counts the changes."""
    return int(connection.execute("SELECT number FROM revision").fetchone()[0])


def find_tenant(connection: sqlite3.Connection, name: str) -> Tenant:
    """Raises NotFound."""
    for tenant in _tenants(connection, "WHERE name = ?", name):
        return tenant
    raise NotFound(f"there is no tenant '{name[:160]}'")


def find_in(snapshot: TenantSnapshot, name: str) -> Tenant:
    """The same of a snapshot. Raises NotFound."""
    if (tenant := snapshot.tenants.get(name)) is None:
        raise NotFound(f"there is no tenant '{name[:160]}'")
    return tenant


def find_key(connection: sqlite3.Connection, tenant: str, key_id: str) -> ApiKey:
    """Raises NotFound."""
    find_tenant(connection, tenant)
    for key in _keys(connection, "WHERE id = ? AND tenant = ?", key_id, tenant):
        return key
    raise NotFound(f"tenant '{tenant}' has no key '{PREFIX}{key_id[:80]}'")


def find_limits(connection: sqlite3.Connection, tenant: str, models: str) -> Limits:
    """Those of a pattern; none of them when nothing was set."""
    found = _limits(connection, "WHERE tenant = ? AND models = ?", tenant, models)
    return found.get((tenant, models), Limits())


def insert_key(connection: sqlite3.Connection, key: ApiKey) -> None:
    """A new one."""
    values = {**msgspec.structs.asdict(key), "roles": _text(key.roles), "models": _text(key.models)}
    names = ", ".join(values)
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO api_keys ({names}) VALUES ({marks})", tuple(values.values()))


def insert_tenant(connection: sqlite3.Connection, tenant: Tenant) -> None:
    """A new one."""
    connection.execute(
        "INSERT INTO tenants (name, created_at, disabled, weight, models, captured) VALUES (?, ?, ?, ?, ?, ?)",
        (
            tenant.name,
            tenant.created_at,
            tenant.disabled,
            tenant.weight,
            _text(tenant.models),
            _text(tenant.captured),
        ),
    )


def update_tenant(connection: sqlite3.Connection, tenant: Tenant) -> None:
    """What may change of a tenant."""
    connection.execute(
        "UPDATE tenants SET disabled = ?, weight = ?, models = ?, captured = ? WHERE name = ?",
        (
            tenant.disabled,
            tenant.weight,
            _text(tenant.models),
            _text(tenant.captured),
            tenant.name,
        ),
    )


def read_usage(
    connection: sqlite3.Connection, tenant: str | None, since_day: int
) -> Iterator[Usage]:
    """By tenant, day and model. Of one tenant, or of all."""
    rows = connection.execute(
        "SELECT tenant, model, day, requests, rows, bytes FROM usage"
        " WHERE day >= ? AND tenant = coalesce(?, tenant) ORDER BY tenant, day, model",
        (since_day, tenant),
    )
    for row in rows:
        yield Usage(**dict(zip(Usage.__struct_fields__, row, strict=True)))


def _tenants(connection: sqlite3.Connection, where: str = "", *values: Any) -> Iterator[Tenant]:
    rows = connection.execute(
        "SELECT name, created_at, disabled, weight, models, captured FROM tenants"
        f" {where} ORDER BY name",
        values,
    )
    for name, created_at, disabled, weight, models, captured in rows:
        yield Tenant(
            name=name,
            created_at=created_at,
            disabled=bool(disabled),
            weight=weight,
            models=_texts(models),
            captured=_texts(captured),
        )


def _keys(connection: sqlite3.Connection, where: str = "", *values: Any) -> Iterator[ApiKey]:
    rows = connection.execute(f"SELECT {_KEY_COLUMNS} FROM api_keys {where}", values)
    # of thousands of keys most have the same lists
    texts = lru_cache(1024)(_texts)
    for id_, tenant, salt, hash_, roles, models, label, created, expires, revoked, day in rows:
        yield ApiKey(
            id=id_,
            tenant=tenant,
            salt=salt,
            hash=hash_,
            roles=texts(roles),
            models=texts(models),
            label=label,
            created_at=created,
            expires_at=expires,
            revoked_at=revoked,
            last_used_day=day,
        )


_KEY_COLUMNS: Final = ", ".join(ApiKey.__struct_fields__)


def _limits(
    connection: sqlite3.Connection, where: str = "", *of: str
) -> dict[tuple[str, str], Limits]:
    values: dict[tuple[str, str], dict[str, float]] = {}
    for tenant, models, kind, value in connection.execute(
        f"SELECT tenant, models, kind, value FROM limits {where} ORDER BY tenant, models", of
    ):
        number = int(value) if kind in WHOLE else value
        values.setdefault((tenant, models), {})[kind] = number
    return {of: Limits(**kinds) for of, kinds in values.items()}  # type: ignore[arg-type]


def _text(texts: tuple[str, ...]) -> str:
    return msgspec.json.encode(texts).decode()


def _texts(text: str) -> tuple[str, ...]:
    return msgspec.json.decode(text, type=tuple[str, ...])
