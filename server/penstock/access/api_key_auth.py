"""API keys → principals.

All that does not hold is refused alike, with 401 and one text: a key that is not known, a wrong secret, a key that has
expired or was revoked, and one of a disabled tenant. Who guesses ids learns nothing from the answer, nor from how long
it took: a key that is not known is compared with one that nobody has. Only a key that was typed wrongly is told from
those, by its checksum, which everybody can reckon.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from penstock.access.api_keys import PREFIX, ParsedKey, is_secret, make_key, parse_key
from penstock.access.credentials import Credentials
from penstock.access.last_used import LastUsed
from penstock.access.principal import Principal
from penstock.access.tenant_records import SECONDS_A_DAY, ApiKey
from penstock.access.tenants import TenantStore
from penstock.errors import Unauthenticated

MISTYPED: Final = "the API key is not one: it was cut off, or copied or typed wrongly"
REFUSED: Final = "the API key is not known, or does not hold any more"

_SCHEME: Final = b"bearer "


class ApiKeyAuthenticator:
    """Knows the keys of a store: `authorization: Bearer psk_…`, or `x-api-key: psk_…`."""

    def __init__(self, store: TenantStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._used = LastUsed(store.keys)
        nobody = make_key()
        # its secret is forgotten here
        self._nobody: Final = ApiKey(
            id=nobody.id, tenant="", salt=nobody.salt, hash=nobody.hash, roles=(), created_at=0
        )

    @property
    def generation(self) -> int:
        """As Authenticator says."""
        return self._store.generation

    def refresh(self, now: float) -> None:
        """As Authenticator says."""
        self._store.refresh(now)
        self._used.refresh(now)

    def authenticate(self, credentials: Credentials) -> Principal | None:
        """As Authenticator says. Raises Unauthenticated."""
        text = _shown(credentials)
        if text is None:
            return None
        shown = parse_key(text)
        if shown is None:
            raise Unauthenticated(MISTYPED)
        now = self._clock()
        key = self._find(shown, now)
        self._used.note(key.id, int(now // SECONDS_A_DAY))
        return Principal(
            id=f"key:{PREFIX}{key.id}",
            tenant=key.tenant,
            roles=key.roles,
            kind="api_key",
            models=key.models,
            expires_at=_until(key, now),
        )

    def close(self) -> None:
        """Write which keys were used."""
        self._used.close()

    def _find(self, shown: ParsedKey, now: float) -> ApiKey:
        """The key that is shown. Raises Unauthenticated unless it works now."""
        snapshot = self._store.snapshot
        key = snapshot.keys.get(shown.id, self._nobody)
        proven = is_secret(key.salt, key.hash, shown.secret)
        if not proven or key.state(now) != "active" or snapshot.disabled(key.tenant):
            raise Unauthenticated(REFUSED)
        return key


def _shown(credentials: Credentials) -> str | None:
    """The key's text; None where there is none, but maybe something else."""
    if credentials.api_key:
        return credentials.api_key.decode("latin-1").strip()
    value = credentials.authorization
    if value[: len(_SCHEME)].lower() != _SCHEME:
        return None
    text = value[len(_SCHEME) :].decode("latin-1").strip()
    return text if text.startswith(PREFIX) else None


def _until(key: ApiKey, now: float) -> float:
    """When to look again: when the key expires, or at the end of the day, for the day of its last use is kept."""
    midnight = (now // SECONDS_A_DAY + 1) * SECONDS_A_DAY
    return min(key.expires_at, midnight) if key.expires_at else midnight
