"""Tenants, keys, limits and usage as JSON: the same on the command line and over HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from penstock.access.api_keys import PREFIX
from penstock.access.key_table import CreatedKey
from penstock.access.limits import Limits
from penstock.access.tenant_records import SECONDS_A_DAY, ApiKey, Tenant, TenantSnapshot, Usage


def tenant_json(tenant: Tenant) -> dict[str, Any]:
    """The tenant alone."""
    return {
        "name": tenant.name,
        "disabled": tenant.disabled,
        "weight": tenant.weight,
        "models": list(tenant.models),
        "captured": list(tenant.captured),
        "created_at": time_text(tenant.created_at),
    }


def whole_json(tenant: Tenant, snapshot: TenantSnapshot, now: float) -> dict[str, Any]:
    """With its keys and limits."""
    return {
        **tenant_json(tenant),
        "keys": [key_json(key, now) for key in snapshot.keys_of(tenant.name)],
        "limits": limits_json(snapshot.limits_of(tenant.name)),
    }


def key_json(key: ApiKey, now: float) -> dict[str, Any]:
    """All but what its secret could be guessed from."""
    return {
        "id": PREFIX + key.id,
        "tenant": key.tenant,
        "state": key.state(now),
        "roles": list(key.roles),
        "models": list(key.models),
        "label": key.label,
        "created_at": time_text(key.created_at),
        "expires_at": time_text(key.expires_at) if key.expires_at else None,
        "revoked_at": time_text(key.revoked_at) if key.revoked_at else None,
        "last_used": day_text(key.last_used_day) if key.last_used_day else None,
    }


def created_json(created: CreatedKey, now: float) -> dict[str, Any]:
    """With the key's text, this once."""
    return {**key_json(created.key, now), "key": created.text}


def limits_json(limits: dict[str, Limits]) -> dict[str, dict[str, float | int]]:
    """By pattern of models."""
    return {pattern: each.given() for pattern, each in limits.items()}


def usage_json(usage: Iterable[Usage]) -> list[dict[str, Any]]:
    """A line a tenant, day and model."""
    return [
        {
            "tenant": each.tenant,
            "day": day_text(each.day),
            "model": each.model,
            "requests": each.requests,
            "rows": each.rows,
            "bytes": each.bytes,
        }
        for each in usage
    ]


def time_text(seconds: float) -> str:
    """Seconds since 1970, in ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day_text(day: int) -> str:
    """Days since 1970, in ISO 8601."""
    return time_text(day * SECONDS_A_DAY)[:10]
