"""Makes the guard that the settings ask for."""

from __future__ import annotations

from penstock.access.certificate_auth import CertificateAuthenticator
from penstock.access.guard import Guard
from penstock.config import Settings


def guard_of(settings: Settings) -> Guard | None:
    """None: access is not controlled."""
    access = settings.access
    if access.mode == "off":
        return None
    return Guard(access, (), CertificateAuthenticator(access.certificates))
