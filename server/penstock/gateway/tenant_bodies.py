"""Bodies of requests that manage tenants."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from penstock.access.limits import ALL_MODELS
from penstock.errors import InvalidRequest

Body = TypeVar("Body")


class NewTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of POST /v2/tenants."""

    name: str
    models: tuple[str, ...] = ("*",)
    weight: float | None = None


class TenantChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of POST /v2/tenants/{tenant}: what is left out stays."""

    disabled: bool | UnsetType = UNSET
    weight: float | UnsetType | None = UNSET
    models: tuple[str, ...] | UnsetType = UNSET
    captured: tuple[str, ...] | UnsetType = UNSET
    """Patterns of models of which the tenant allows that its requests are kept."""

    @property
    def allows_alone(self) -> bool:
        """There is nothing else to be changed."""
        others = (self.disabled, self.weight, self.models)
        return self.captured is not UNSET and all(each is UNSET for each in others)


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of POST /v2/tenants/{tenant}/keys."""

    roles: tuple[str, ...] = ("user",)
    models: tuple[str, ...] | UnsetType = UNSET
    """As many as the caller's own, unless they are given."""
    label: str = ""
    expires_in_s: float | None = None


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of POST /v2/tenants/{tenant}/keys/{key}/rotate."""

    overlap_s: float = 86_400.0
    expires_in_s: float | None = None


class QuotaChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of POST /v2/tenants/{tenant}/quotas: a limit that is null is taken away, those that are left out stay."""

    limits: dict[str, float | int | None]
    models: str = ALL_MODELS


def parse_body(data: bytes, kind: type[Body]) -> Body:
    """The body. An empty one is an empty object. Raises InvalidRequest."""
    try:
        return msgspec.json.decode(data if data.strip() else b"{}", type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not as expected: {error}") from error
