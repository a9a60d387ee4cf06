"""What is known of tenants: the rows of the store, and all of them at one moment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from penstock.access.limits import Limits
from penstock.access_config import matches
from penstock.errors import InvalidRequest

SECONDS_A_DAY: Final = 86_400
LARGEST_WEIGHT: Final = 1_000_000
LONGEST_LABEL: Final = 200
MOST_NAMES: Final = 100
"""Patterns or roles in one list."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""As in `access_config`: certificates name tenants too."""
_SET: Final = re.compile(r"\[!?+.[^]]*\]")
"""Of characters, in a pattern: `]` may be its first one."""
_PATTERN: Final = re.compile(r"[^\s,\x00-\x1f\x7f]{1,256}")


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """Whose requests they are."""

    name: str
    created_at: float
    """Unix seconds."""
    disabled: bool = False
    weight: float | None = None
    """Its share of a busy model; None: what the server's settings say, or 1."""
    models: tuple[str, ...] = ("*",)
    """Patterns of the models that it may reach at all."""
    captured: tuple[str, ...] = ()
    """Patterns of the models of which the tenant allows that its requests are kept, for training; none: of none."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key, but for its secret, of which only a salted hash is known."""

    id: str
    tenant: str
    salt: bytes
    hash: bytes
    roles: tuple[str, ...]
    models: tuple[str, ...] = ("*",)
    label: str = ""
    created_at: float
    expires_at: float = 0.0
    """Unix seconds; 0: never."""
    revoked_at: float = 0.0
    """Unix seconds; 0: it is not."""
    last_used_day: int = 0
    """Days since 1970 (UTC); 0: never."""

    def __repr__(self) -> str:
        # a log needs no hashes
        return f"ApiKey(id={self.id!r}, tenant={self.tenant!r}, state={self.state(0)!r})"

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at:
            return "revoked"
        return "expired" if 0 < self.expires_at <= now else "active"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of a model in a tenant's name on a day."""

    tenant: str
    model: str
    day: int
    """Days since 1970 (UTC)."""
    requests: int = 0
    rows: int = 0
    bytes: int = 0


class TenantSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that decisions are made from, at one moment."""

    revision: int = 0
    """Counts the changes of what is in here."""
    tenants: Mapping[str, Tenant] = {}
    deleted: frozenset[str] = frozenset()
    """Names of those that were deleted, and not made again."""
    keys: Mapping[str, ApiKey] = {}
    """By id."""
    limits: Mapping[tuple[str, str], Limits] = {}
    """Of a tenant and a pattern of models."""

    @property
    def weights(self) -> dict[str, float]:
        """Those that are set."""
        return {
            name: tenant.weight
            for name, tenant in self.tenants.items()
            if tenant.weight is not None
        }

    def disabled(self, tenant: str) -> bool:
        """Whether the tenant is known, and disabled."""
        known = self.tenants.get(tenant)
        return known is not None and known.disabled

    def reach(self, tenant: str) -> tuple[str, ...] | None:
        """Patterns of the models that the tenant may reach; None: it is disabled, or deleted. One that is named by
        tokens or certificates, and was never in the file, is not kept from any."""
        known = self.tenants.get(tenant)
        if known is None:
            return None if tenant in self.deleted else ("*",)
        return None if known.disabled else known.models

    def may_keep(self, tenant: str, model: str) -> bool:
        """Whether the tenant allows that its requests to the model are kept. Nobody has asked one that was never in the
        file."""
        known = self.tenants.get(tenant)
        return known is not None and matches(model, known.captured)

    def keys_of(self, tenant: str) -> tuple[ApiKey, ...]:
        """The oldest first."""
        keys = (key for key in self.keys.values() if key.tenant == tenant)
        return tuple(sorted(keys, key=lambda key: (key.created_at, key.id)))

    def limits_of(self, tenant: str) -> dict[str, Limits]:
        """By pattern."""
        return {pattern: of for (name, pattern), of in self.limits.items() if name == tenant}


def parse_day(text: str) -> int:
    """A day such as 2026-07-01, as days since 1970 (UTC). Raises InvalidRequest."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise InvalidRequest(f"{text[:80]!r} is no day, such as 2026-07-01") from None
    return int(day.timestamp() // SECONDS_A_DAY)


def check_tenant_name(name: str) -> str:
    """The name itself. Raises InvalidRequest."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "a tenant's name has 1 to 64 letters, digits and `._@-`, the first a letter or digit;"
            f" got {name[:160]!r}"
        )
    return name


def check_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Patterns of models' names, each once. Raises InvalidRequest."""
    if not 1 <= len(patterns) <= MOST_NAMES:
        raise InvalidRequest(
            f"expected 1 to {MOST_NAMES} patterns of models, `*` for all; got {len(patterns)}"
        )
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise InvalidRequest(
                "a pattern of models has 1 to 256 characters, no blanks and no commas;"
                f" got {pattern[:300]!r}"
            )
        if "/" in pattern:
            raise InvalidRequest(f"no model has a / in its name; got {pattern[:300]!r}")
        if "[" in _SET.sub("", pattern):
            raise InvalidRequest(f"expected a ] for each [ of a pattern; got {pattern[:300]!r}")
    return tuple(dict.fromkeys(patterns))


def check_roles(roles: tuple[str, ...]) -> tuple[str, ...]:
    """Names of roles, each once; whether there are such roles the server's settings know. Raises InvalidRequest."""
    if not 1 <= len(roles) <= MOST_NAMES:
        raise InvalidRequest(f"a key needs 1 to {MOST_NAMES} roles; got {len(roles)}")
    for role in roles:
        if not _NAME.fullmatch(role):
            raise InvalidRequest(
                "a role's name has 1 to 64 letters, digits and `._@-`, the first a letter or digit;"
                f" got {role[:80]!r}"
            )
    return tuple(dict.fromkeys(roles))


def check_label(label: str) -> str:
    """The label itself. Raises InvalidRequest."""
    if len(label) > LONGEST_LABEL or not label.isprintable():
        raise InvalidRequest(
            f"a label has at most {LONGEST_LABEL} printable characters; got {label[:80]!r}"
        )
    return label


def check_weight(weight: float | None) -> float | None:
    """The weight itself. Raises InvalidRequest."""
    if weight is not None and not 0 < weight <= LARGEST_WEIGHT:
        raise InvalidRequest(
            f"a weight is a number above 0, up to {LARGEST_WEIGHT}; got {weight!r}"
        )
    return weight
