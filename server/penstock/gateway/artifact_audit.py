"""What became of the checks of models is recorded in the audit log, whether a request or a poll has led to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from penstock.audit.event import AuditEvent
from penstock.audit.log import AuditLog
from penstock.errors import Unavailable
from penstock.trust.artifact import Judgement

ACTION: Final = "artifact.verify"
PATIENCE_S: Final = 10.0


def recorded_checks(
    audit_log: AuditLog, loop: asyncio.AbstractEventLoop
) -> Callable[[Judgement], None]:
    """An observer of checks, in their threads. It raises Unavailable, and the model is not loaded, where a check has to
    be recorded and can't be."""

    async def record(event: AuditEvent) -> None:
        await audit_log.durable(audit_log.record(event))

    def observe(judgement: Judgement) -> None:
        recording = asyncio.run_coroutine_threadsafe(record(event_of(judgement)), loop)
        try:
            recording.result(PATIENCE_S)
        except TimeoutError:
            recording.cancel()
            raise Unavailable("what became of the model's check can't be recorded") from None

    return observe


def event_of(judgement: Judgement) -> AuditEvent:
    """As the log has it."""
    details = {
        "version": str(judgement.version),
        "outcome": judgement.outcome,
        "signer": judgement.signer,
        "serial": str(judgement.serial) if judgement.serial else "",
        "manifest_sha256": judgement.digest,
    }
    return AuditEvent(
        action=ACTION,
        outcome="refused" if judgement.reason else "done",
        model=judgement.model,
        reason=judgement.reason,
        details={name: text for name, text in details.items() if text},
    )
