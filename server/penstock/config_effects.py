"""Settings of security that would have no effect: whoever gives them believes to be protected, and is not.

Only the server asks for it. `penstock tenants` reads the same file, where the mode may be a flag of `penstock serve`.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.config import Settings
from penstock.errors import ConfigError


def check_effects(settings: Settings) -> None:
    """Raises ConfigError for the first of them, with what was expected."""
    for name, expected in _without_effect(settings):
        raise ConfigError(f"{name} has no effect: expected {expected}")


def _without_effect(settings: Settings) -> Iterator[tuple[str, str]]:
    access, quotas, audit = settings.access, settings.quotas, settings.audit
    if access.mode == "off":
        required = 'access.mode "required", for now everybody may do everything'
        for name in ("roles", "certificates", "jwt", "anonymous_roles"):
            if getattr(access, name):
                yield f"access.{name}", required
        if quotas.redis_url:
            yield "quotas.redis_url", 'access.mode "required", without which nobody has a quota'
    if access.certificates and settings.tls.client_auth == "none":
        yield (
            "access.certificates",
            'tls.client_auth "optional" or "require", without which no client shows a certificate',
        )
    if audit.folder is None:
        for name in ("sign_key", "inferences"):
            if getattr(audit, name):
                yield f"audit.{name}", "audit.folder, without which nothing is recorded"
    capture = settings.capture
    if capture.folder is None and capture.rules:
        yield "capture.rules", "capture.folder, without which nothing is kept"
    if capture.folder is not None and not any(rule.sample for rule in capture.rules):
        yield (
            "capture.folder",
            "[[capture.rules]] that say which models' requests are kept, with a sample over 0",
        )
