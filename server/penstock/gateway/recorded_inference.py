"""The gateway's Inference, with the records that are wanted of what is inferred."""

from __future__ import annotations

from penstock.audit.log import AuditLog
from penstock.gateway.captured_inference import CapturedAuditedInference, CapturedInference
from penstock.gateway.capturing import Capturing
from penstock.gateway.client_memory import ClientMemory
from penstock.gateway.inference import Inference
from penstock.gateway.inference_audit import AuditedInference
from penstock.repository.repository import ModelRepository
from penstock.telemetry.tracing.tracing import Tracing


def inference_of(
    repository: ModelRepository,
    memory: ClientMemory,
    tracing: Tracing,
    audit_log: AuditLog | None,
    capturing: Capturing | None,
) -> Inference:
    """`audit_log`: takes a record of each inference. `capturing`: keeps some as data for training. None: no such
    records, which cost nothing then."""
    parts = repository, memory, tracing
    if capturing is None:
        return Inference(*parts) if audit_log is None else AuditedInference(*parts, audit_log)
    captured = (
        CapturedInference(*parts)
        if audit_log is None
        else CapturedAuditedInference(*parts, audit_log)
    )
    captured.capture = capturing.capture
    return captured
