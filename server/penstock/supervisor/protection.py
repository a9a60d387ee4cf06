"""Who is let in, and what is recorded, for who starts a server to read."""

from __future__ import annotations

import time

from penstock.access.tenants import TenantStore
from penstock.config import Settings
from penstock.errors import PenstockError

HINT = (
    "No tenant has a key yet: penstock tenants create NAME, then penstock tenants key create NAME"
)


def protections(settings: Settings) -> dict[str, str]:
    """Label → what holds."""
    rows = {"access": _access(settings)}
    audit = settings.audit
    if audit.folder is not None:
        rows["audit"] = f"{audit.folder}, {'not signed' if audit.sign_key is None else 'signed'}"
    if settings.capture.folder is not None:
        rows["capture"] = _capture(settings)
    return rows


def nobody_has_a_key(settings: Settings) -> bool:
    """Whether all requests will be refused, for want of a key."""
    access = settings.access
    if access.mode == "off" or access.jwt or access.certificates or access.anonymous_roles:
        return False
    try:
        store = TenantStore(access.tenants_path, create=False)
        try:
            keys = store.read().keys.values()
        finally:
            store.close()
    except PenstockError:
        # the gateway says so
        return False
    now = time.time()
    return all(key.state(now) != "active" for key in keys)


def _access(settings: Settings) -> str:
    access = settings.access
    if access.mode == "off":
        return "open: whoever reaches a port may do everything"
    ways = ["API keys"]
    if access.jwt:
        ways.append("JWT")
    if access.certificates:
        ways.append("client certificates")
    text = ", ".join(ways)
    if access.anonymous_roles:
        text += f"; without a credential: {', '.join(access.anonymous_roles)}"
    return text


def _capture(settings: Settings) -> str:
    """What whoever starts a server should know: that requests are kept."""
    shares = (
        f"{rule.sample * 100:g} % of {', '.join(rule.models)}"
        for rule in settings.capture.rules
        if rule.sample
    )
    consent = "" if settings.access.mode == "off" else ", of tenants that allow it"
    return f"requests are kept in {settings.capture.folder}: {'; '.join(shares)}{consent}"
