"""What the registry brings, and what its aliases come to mean, is recorded in the audit log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from penstock.audit.event import AuditEvent
from penstock.audit.log import AuditLog
from penstock.errors import Unavailable
from penstock.registry.messages import FetchNote

ALIAS: Final = "registry.alias"

log = logging.getLogger(__name__)


def recorded_notes(audit_log: AuditLog) -> Callable[[FetchNote], None]:
    """For `RegistryLink.on_note`."""

    def note(note: FetchNote) -> None:
        _record(
            audit_log,
            AuditEvent(
                action=note.action,
                outcome=note.outcome,
                model=note.model,
                reason=note.reason,
                details=note.details,
            ),
        )

    return note


def recorded_moves(audit_log: AuditLog) -> Callable[[str, str, int | None, int | None], None]:
    """For `RegistryModels.on_moved`."""

    def moved(model: str, alias: str, old: int | None, new: int | None) -> None:
        details = {"alias": alias, "before": str(old or ""), "version": str(new or "")}
        _record(
            audit_log,
            AuditEvent(action=ALIAS, outcome="done", model=model, details=details),
        )

    return moved


def _record(audit_log: AuditLog, event: AuditEvent) -> None:
    try:
        audit_log.record(event)
    except Unavailable as error:
        # it has happened, elsewhere: there is nothing to refuse
        log.error("'%s' of model '%s' is not recorded: %s", event.action, event.model, error)  # noqa: TRY400
