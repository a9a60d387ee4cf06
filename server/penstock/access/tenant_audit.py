"""Changes of tenants in the audit log."""

from __future__ import annotations

from penstock.access.tenant_changes import Record, TenantChange, not_recorded
from penstock.audit.event import AuditEvent
from penstock.audit.log import AuditLog


def recorded_in(log: AuditLog | None) -> Record:
    """Records changes there; None: there is no log."""
    if log is None:
        return not_recorded
    audit_log = log

    def record(change: TenantChange) -> None:
        event = AuditEvent(
            action=change.action,
            outcome=change.outcome,
            principal=change.principal,
            tenant=change.tenant,
            reason=change.reason,
            details=change.details,
        )
        audit_log.wait(audit_log.record(event))

    return record
