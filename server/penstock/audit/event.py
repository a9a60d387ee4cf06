"""What is recorded: one thing that somebody did, tried to do, or was refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from penstock.logs import without_controls
from penstock.redaction import redacted

Outcome = Literal["allowed", "refused", "failed", "done"]
"""allowed: about to be done; done or failed: how that ended; refused: not even begun."""

MAX_TEXT: Final = 512
"""Characters of each text: clients choose some of them."""
MAX_DETAILS: Final = 16


class AuditEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One event. Empty texts are left out of the record."""

    action: str
    """What it is about, such as `model.load` or `authenticate`."""
    outcome: Outcome
    principal: str = ""
    """Who: an API key's id, a JWT's subject, a certificate's name."""
    tenant: str = ""
    model: str = ""
    reason: str = ""
    """Why it was refused or failed."""
    request_id: str = ""
    """The request's id; the records of one action's intent and outcome share it."""
    client: str = ""
    """Address of the connection's other end."""
    details: Mapping[str, str] = {}


def bounded(event: AuditEvent) -> AuditEvent:
    """The event with its texts cut off at their bounds, so that what waits to be written has one too."""
    if (
        not event.details
        and len(event.reason) <= MAX_TEXT
        and len(event.request_id) <= MAX_TEXT
        and len(event.model) <= MAX_TEXT
        and len(event.principal) <= MAX_TEXT
        and len(event.client) <= MAX_TEXT
        and len(event.tenant) <= MAX_TEXT
        and len(event.action) <= MAX_TEXT
    ):
        return event
    details = list(event.details.items())[:MAX_DETAILS]
    cut = {name: getattr(event, name)[:MAX_TEXT] for name in _TEXTS}
    return msgspec.structs.replace(
        event, **cut, details={name[:MAX_TEXT]: text[:MAX_TEXT] for name, text in details}
    )


def cleaned(event: AuditEvent) -> AuditEvent:
    """The event as it may be written: no secrets, only what UTF-8 can say, and nothing that a terminal acts on."""
    texts = {name: _clean(getattr(event, name)) for name in _TEXTS}
    details = {_clean(name): _clean(text) for name, text in event.details.items()}
    return msgspec.structs.replace(event, **texts, details=details)


_TEXTS: Final = ("action", "principal", "tenant", "model", "reason", "request_id", "client")


def _clean(text: str) -> str:
    if not text:
        return text
    if not text.isascii():
        text = text.encode(errors="backslashreplace").decode()
    return redacted(text if text.isprintable() else without_controls(text))
