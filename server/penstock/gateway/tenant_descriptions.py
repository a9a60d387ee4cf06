"""What the routes under `/v2/tenants` ask of their caller, and what `/openapi.json` says of them."""

from __future__ import annotations

from typing import Final

from penstock.access.rules import of
from penstock.gateway.route_table import Description
from penstock.verbs import Verb

_TAG: Final = "tenants"
_RULE: Final = of(Verb.MANAGE_TENANTS)
_READ: Final = (403, 404, 501, 503)
_CHANGE: Final = (400, *_READ)

TENANTS: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="All tenants that the caller may manage",
    response="Tenants",
    errors=(403, 501, 503),
)
CREATE: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="Make a tenant",
    request="NewTenant",
    response="Tenant",
    errors=(400, 403, 501, 503),
)
SHOW: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="A tenant with its keys and limits",
    response="Tenant",
    errors=_READ,
)
CHANGE: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="Disable or enable a tenant, change its weight, its models, and whose requests are kept",
    request="TenantChanges",
    response="Tenant",
    errors=_CHANGE,
)
DELETE: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="Delete a tenant with its keys, limits and usage",
    response="Any",
    errors=_READ,
)
KEYS: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="A tenant's keys, also those that don't work any more",
    response="ApiKeys",
    errors=_READ,
)
CREATE_KEY: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="Make a key, which is shown this once",
    request="NewApiKey",
    optional_body=True,
    response="ApiKey",
    errors=_CHANGE,
)
ROTATE_KEY: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="Make a key in place of another one, which goes on for an overlap",
    request="KeyRotation",
    optional_body=True,
    response="ApiKey",
    errors=_CHANGE,
)
REVOKE_KEY: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="End a key, at once and for ever",
    response="ApiKey",
    errors=_READ,
)
QUOTAS: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="A tenant's limits, by pattern of models",
    response="Quotas",
    errors=_READ,
)
SET_QUOTA: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="Set limits; those that are left out stay, null takes one away",
    request="QuotaChanges",
    response="Quotas",
    errors=_CHANGE,
)
CLEAR_QUOTAS: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="Take all of a tenant's limits away",
    response="Any",
    errors=_READ,
)
USAGE: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="What was asked in a tenant's name, by day and model; of 30 days, or since one",
    response="Usage",
    errors=_CHANGE,
)
