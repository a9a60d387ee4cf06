"""Makes the guard that the settings ask for, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from penstock.access.api_key_auth import ApiKeyAuthenticator
from penstock.access.authenticator import Authenticator
from penstock.access.certificate_auth import CertificateAuthenticator
from penstock.access.guard import Guard
from penstock.access.jwt_auth import JwtAuthenticator
from penstock.access.tenants import TenantStore
from penstock.config import Settings


class Access:
    """Who may do what, for one gateway."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for a file of tenants that can't be used, Unavailable for one that can't be now."""
        self._starts: list[Callable[[], None]] = []
        self._ends: list[Callable[[], None]] = []
        self.guard: Guard | None = None
        """None: access is not controlled."""
        self.tenants: TenantStore | None = None
        """Likewise."""
        if settings.access.mode != "off":
            self.tenants = tenants = TenantStore(settings.access.tenants_path)
            self._ends.append(tenants.close)
            authenticators = [self._api_keys(tenants), *self._jwt(settings)]
            certificates = CertificateAuthenticator(settings.access.certificates)
            self.guard = Guard(
                settings.access,
                authenticators,
                certificates,
                reach_of=lambda tenant: tenants.snapshot.reach(tenant),
            )

    def start(self) -> None:
        """Get what credentials are checked by; until it is here they can't be. Raises ConfigError if it never will."""
        for start in self._starts:
            start()

    def close(self) -> None:
        """End threads and connections. May block for a moment."""
        for end in reversed(self._ends):
            end()

    def _api_keys(self, tenants: TenantStore) -> Authenticator:
        keys = ApiKeyAuthenticator(tenants)
        self._ends.append(keys.close)
        return keys

    def _jwt(self, settings: Settings) -> list[Authenticator]:
        if not settings.access.jwt:
            return []
        tokens = JwtAuthenticator.of(settings.access.jwt, _read_secret)
        self._starts.append(tokens.start)
        self._ends.append(tokens.close)
        return [tokens]


def _read_secret(ref: str) -> bytes:
    return Path(ref.removeprefix("file:")).read_bytes()
