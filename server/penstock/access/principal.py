"""Who somebody is, once that is known."""

from __future__ import annotations

from typing import Literal

import msgspec


class Principal(msgspec.Struct, frozen=True):
    """Whose requests they are, and what the roles are called that say what they may do."""

    id: str
    """For the audit log: `key:psk_ab12cd34`, `jwt:<issuer>#<subject>`, `cert:spiffe://…`."""
    tenant: str
    roles: tuple[str, ...]
    kind: Literal["api_key", "jwt", "certificate", "anonymous"]
    models: tuple[str, ...] = ("*",)
    """Patterns of the models that it may have to do with, whatever its roles say."""
    expires_at: float = 0
    """Seconds since 1970; 0: never."""
