"""What a token's claims must say, and whose requests they make: no I/O, no clock, no signatures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.access.jwt_text import TokenRefused
from penstock.access_config import matches
from penstock.config_section import NAME_PATTERN
from penstock.jwt_config import JwtIssuer, claim_names

MAX_TENANT_CHARACTERS: Final = 64
MAX_SUBJECT_CHARACTERS: Final = 255
"""As OpenID Connect has it."""
MAX_ROLE_VALUES: Final = 1000
MAX_SECONDS: Final = 2**53
"""Of Unix time: beyond it, a float is not exact."""

_MISSING: Final = object()
_is_tenant: Final = re.compile(NAME_PATTERN).fullmatch


class Identity(msgspec.Struct, frozen=True):
    """Whom a token speaks for."""

    subject: str
    tenant: str
    roles: tuple[str, ...]
    expires_at: float
    """Unix seconds from which the token holds no more, by this machine's clock."""


class ClaimRules:
    """One issuer's, in a form that is quick to check."""

    def __init__(self, issuer: JwtIssuer) -> None:
        self._issuer = issuer
        self._audience = frozenset(issuer.audience)
        self._tenant_path = claim_names(issuer.tenant_claim)
        self._subject_path = claim_names(issuer.subject_claim)
        self._roles_path = claim_names(issuer.roles_claim)
        self._required = [
            (path, claim_names(path), value) for path, value in issuer.required_claims.items()
        ]
        self._types = frozenset(map(_type_name, issuer.types))

    def check_type(self, header: Mapping[str, Any]) -> None:
        """Tokens that are made for something else have a `typ` of their own. Raises TokenRefused."""
        if _type_name(header.get("typ", "JWT")) not in self._types:
            raise TokenRefused("typ is another")

    def identity(self, claims: Mapping[str, Any], now: float) -> Identity:
        """Whom it speaks for. Raises TokenRefused."""
        if claims.get("iss") != self._issuer.issuer:
            raise TokenRefused("iss is another")
        expires_at = self._check_times(claims, now)
        self._check_audience(claims)
        for path, names, wanted in self._required:
            if not _holds(_value_at(claims, names), wanted):
                raise TokenRefused(f"claim {path} is not as required")
        return Identity(
            subject=_name(claims, self._subject_path, MAX_SUBJECT_CHARACTERS),
            tenant=self._tenant(claims),
            roles=self._roles(claims),
            expires_at=expires_at,
        )

    def _check_times(self, claims: Mapping[str, Any], now: float) -> float:
        issuer, leeway = self._issuer, self._issuer.leeway_secs
        expiry = _time(claims, "exp")
        if expiry is None:
            raise TokenRefused("no exp")
        if now >= expiry + leeway:
            raise TokenRefused("expired")
        begin, issued = _time(claims, "nbf"), _time(claims, "iat")
        for name, value in (("nbf", begin), ("iat", issued)):
            if value is not None and value > now + leeway:
                raise TokenRefused(f"{name} is in the future")
        if issuer.max_lifetime_secs:
            made = now if issued is None else issued
            if expiry - made > issuer.max_lifetime_secs + leeway:
                raise TokenRefused("made for longer than max_lifetime_secs")
        expires_at = expiry + leeway
        if issuer.max_age_secs:
            if issued is None:
                raise TokenRefused("no iat")
            expires_at = min(expires_at, issued + issuer.max_age_secs + leeway)
            if now >= expires_at:
                raise TokenRefused("older than max_age_secs")
        return expires_at

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        audience = claims.get("aud")
        every = [audience] if isinstance(audience, str) else audience
        if not isinstance(every, list) or not all(isinstance(one, str) for one in every):
            raise TokenRefused("no aud, or one that is no text")
        if self._audience.isdisjoint(every):
            raise TokenRefused("aud is another")

    def _tenant(self, claims: Mapping[str, Any]) -> str:
        if self._issuer.tenant is not None:
            return self._issuer.tenant
        tenant = _name(claims, self._tenant_path, MAX_TENANT_CHARACTERS)
        if not _is_tenant(tenant):
            raise TokenRefused(f"no name for a tenant: {_shown(tenant)}")
        if not matches(tenant, self._issuer.tenants):
            raise TokenRefused(f"may not speak for the tenant {_shown(tenant)}")
        return tenant

    def _roles(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        if not self._roles_path:
            return self._issuer.default_roles
        given = _value_at(claims, self._roles_path)
        if given is _MISSING:
            return self._issuer.default_roles
        values = [given] if isinstance(given, str) else given
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise TokenRefused(f"claim {self._issuer.roles_claim} is no text or list of texts")
        if len(values) > MAX_ROLE_VALUES:
            raise TokenRefused(f"claim {self._issuer.roles_claim} has {len(values)} values")
        mapping = self._issuer.role_map
        found = (role for value in values for role in mapping.get(value, ()))
        return tuple(dict.fromkeys(found)) or self._issuer.default_roles


def _value_at(claims: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    value: Any = claims
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return _MISSING
        value = value[name]
    return value


def _name(claims: Mapping[str, Any], path: tuple[str, ...], limit: int) -> str:
    """A text that logs and files can hold as it is."""
    value = _value_at(claims, path)
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise TokenRefused(f"claim {'.'.join(path)} is missing, or no name")
    return value


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Seconds since 1970, None if there are none."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefused(f"{name} is no number")
    if not 0 <= value <= MAX_SECONDS or not math.isfinite(value):
        raise TokenRefused(f"{name} is no time")
    return float(value)


def _holds(value: Any, wanted: bool | int | str | tuple[str, ...]) -> bool:
    if value is _MISSING or value is None:
        return False
    if wanted == "*":
        return True
    accepted = wanted if isinstance(wanted, tuple) else (wanted,)
    given = value if isinstance(value, list) else [value]
    # True is 1 for Python, and not for JSON
    return any(type(one) is type(good) and one == good for one in given for good in accepted)


def _type_name(text: str) -> str:
    return text.lower().removeprefix("application/")


def _shown(text: str) -> str:
    return ascii(text[:80])
