"""What each route under `/v2/tenants` does. All of it waits for the disk: in a thread beside the event loop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from msgspec import UNSET

from penstock.access.api_keys import PREFIX
from penstock.access.grants import Grants
from penstock.access.tenant_changes import ChangeTrace
from penstock.access.tenant_json import (
    created_json,
    key_json,
    limits_json,
    tenant_json,
    usage_json,
    whole_json,
)
from penstock.access.tenant_records import SECONDS_A_DAY, ApiKey, parse_day
from penstock.access.tenant_rows import find_in
from penstock.access.tenants import TenantStore
from penstock.access_config import Role
from penstock.errors import InvalidRequest, NotFound
from penstock.gateway.tenant_bodies import (
    NewKey,
    NewTenant,
    QuotaChanges,
    Rotation,
    TenantChanges,
    parse_body,
)

USAGE_DAYS: Final = 30
"""How far back usage is shown, unless the path says since when."""


class TenantCall(NamedTuple):
    """One request to manage tenants, whose sender covers the tenant that the path names."""

    store: TenantStore
    grants: Grants
    trace: ChangeTrace
    roles: Mapping[str, Role]
    own_models: tuple[str, ...]
    """Those that the caller's credential is for."""
    tenant: str
    """Empty where the path names none."""
    key: str
    """A key's id; empty where the path names none."""
    since: str
    body: bytes


def list_tenants(call: TenantCall) -> Any:
    """GET /v2/tenants: all; whose the caller may know is for the route to say."""
    return [tenant_json(tenant) for tenant in call.store.read().tenants.values()]


def create(call: TenantCall) -> Any:
    """POST /v2/tenants"""
    given = parse_body(call.body, NewTenant)
    call.grants.check_bounds(given.name)
    with call.trace.of("create", given.name):
        made = call.store.create(given.name, models=given.models, weight=given.weight)
    return tenant_json(made)


def show(call: TenantCall) -> Any:
    """GET /v2/tenants/{tenant}"""
    snapshot = call.store.read()
    return whole_json(find_in(snapshot, call.tenant), snapshot, time.time())


def change(call: TenantCall) -> Any:
    """POST /v2/tenants/{tenant}: that requests are kept is not what bounds a tenant, and its own to allow."""
    given = parse_body(call.body, TenantChanges)
    if not given.allows_alone:
        call.grants.check_bounds(call.tenant)
    names = ("disabled", "weight", "models", "captured")
    details = {n: str(getattr(given, n)) for n in names if getattr(given, n) is not UNSET}
    if not details:
        raise InvalidRequest(f"nothing to change: expected one of {', '.join(names)}")
    with call.trace.of("change", call.tenant, **details):
        changed = call.store.change(
            call.tenant,
            disabled=None if given.disabled is UNSET else given.disabled,
            models=None if given.models is UNSET else given.models,
            weight=given.weight,
            captured=None if given.captured is UNSET else given.captured,
        )
    return tenant_json(changed)


def delete(call: TenantCall) -> Any:
    """DELETE /v2/tenants/{tenant}"""
    call.grants.check_bounds(call.tenant)
    with call.trace.of("delete", call.tenant):
        call.store.delete(call.tenant)
    return {}


def list_keys(call: TenantCall) -> Any:
    """GET /v2/tenants/{tenant}/keys"""
    snapshot, now = call.store.read(), time.time()
    find_in(snapshot, call.tenant)
    return [key_json(key, now) for key in snapshot.keys_of(call.tenant)]


def create_key(call: TenantCall) -> Any:
    """POST /v2/tenants/{tenant}/keys: the only answer that has the key itself."""
    given = parse_body(call.body, NewKey)
    models = call.own_models if given.models is UNSET else given.models
    _check_roles(call, given.roles)
    call.grants.check_key(call.tenant, given.roles, models)
    with call.trace.of("key.create", call.tenant, roles=", ".join(given.roles), label=given.label):
        created = call.store.keys.create(
            call.tenant,
            roles=given.roles,
            models=models,
            label=given.label,
            lifetime_s=given.expires_in_s,
        )
    return created_json(created, time.time())


def rotate_key(call: TenantCall) -> Any:
    """POST /v2/tenants/{tenant}/keys/{key}/rotate: whoever rotates a key holds one like it."""
    given = parse_body(call.body, Rotation)
    old = _find_key(call)
    _check_roles(call, old.roles)
    call.grants.check_key(call.tenant, old.roles, old.models)
    with call.trace.of("key.rotate", call.tenant, key=PREFIX + old.id):
        created = call.store.keys.rotate(
            call.tenant, old.id, overlap_s=given.overlap_s, lifetime_s=given.expires_in_s
        )
    return created_json(created, time.time())


def revoke_key(call: TenantCall) -> Any:
    """POST /v2/tenants/{tenant}/keys/{key}/revoke"""
    key = _find_key(call)
    with call.trace.of("key.revoke", call.tenant, key=PREFIX + key.id):
        revoked = call.store.keys.revoke(call.tenant, key.id)
    return key_json(revoked, time.time())


def list_quotas(call: TenantCall) -> Any:
    """GET /v2/tenants/{tenant}/quotas"""
    snapshot = call.store.read()
    find_in(snapshot, call.tenant)
    return limits_json(snapshot.limits_of(call.tenant))


def set_quota(call: TenantCall) -> Any:
    """POST /v2/tenants/{tenant}/quotas"""
    given = parse_body(call.body, QuotaChanges)
    call.grants.check_bounds(call.tenant)
    details = {name: str(value) for name, value in given.limits.items()}
    with call.trace.of("quota.set", call.tenant, models=given.models, **details):
        limits = call.store.set_limits(call.tenant, given.limits, given.models)
    return limits_json({given.models: limits})


def clear_quotas(call: TenantCall) -> Any:
    """DELETE /v2/tenants/{tenant}/quotas"""
    call.grants.check_bounds(call.tenant)
    with call.trace.of("quota.clear", call.tenant, models="all"):
        call.store.clear_limits(call.tenant)
    return {}


def show_usage(call: TenantCall) -> Any:
    """GET /v2/tenants/{tenant}/usage[/since/{since}]"""
    today = int(time.time() // SECONDS_A_DAY)
    since = parse_day(call.since) if call.since else today - USAGE_DAYS
    usage = call.store.usage(call.tenant, since)
    if not usage:
        # tokens name tenants that are not in the file: those have usage all the same
        find_in(call.store.read(), call.tenant)
    return usage_json(usage)


def _find_key(call: TenantCall) -> ApiKey:
    key = call.store.read().keys.get(call.key.removeprefix(PREFIX))
    if key is None or key.tenant != call.tenant:
        raise NotFound(f"tenant '{call.tenant[:160]}' has no such key")
    return key


def _check_roles(call: TenantCall, roles: tuple[str, ...]) -> None:
    for role in roles:
        if role not in call.roles:
            raise InvalidRequest(
                f"there is no role '{role[:80]}', expected one of {', '.join(call.roles)}"
            )
