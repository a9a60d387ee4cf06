"""Makes what keeps records of requests, and has the audit log say what is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.metrics_core import Metric

from penstock.audit.event import AuditEvent
from penstock.audit.log import AuditLog
from penstock.capture.capture import Capture, MayKeep
from penstock.capture.columns import Table
from penstock.capture.counts import CaptureCounts
from penstock.capture.link import CaptureLink
from penstock.capture.messages import SOCKET
from penstock.capture_config import CaptureRule
from penstock.config import Settings
from penstock.errors import Unavailable
from penstock.telemetry.capture_metrics import capture_metrics

log = logging.getLogger(__name__)

START: Final = "capture.start"
MODEL: Final = "capture.model"
STOP: Final = "capture.stop"


class Capturing:
    """One a gateway that keeps records."""

    def __init__(
        self, settings: Settings, audit_log: AuditLog | None, may_keep: MayKeep | None
    ) -> None:
        """`may_keep`: whether a tenant allows it; None: access is not controlled."""
        capture = settings.capture
        assert capture.folder is not None and settings.run_dir is not None, (
            "the supervisor has looked"
        )
        counts = CaptureCounts()
        self._settings = settings
        self._audit_log = audit_log
        self._link = CaptureLink(settings.run_dir / SOCKET, int(capture.queue_bytes), counts)
        self.capture: Final = Capture(capture, self._link, counts, may_keep, self._begun)
        self.metrics: Final[Callable[[], Iterator[Metric]]] = capture_metrics(
            counts, lambda: self._link.queued_bytes
        )

    def start(self) -> None:
        """From now on."""
        self._record(AuditEvent(action=START, outcome="done", details=self._details()))
        self._link.start()

    async def close(self) -> None:
        """Give the writer what is left."""
        await self._link.close()
        self._record(AuditEvent(action=STOP, outcome="done"))

    def _details(self) -> dict[str, str]:
        capture = self._settings.capture
        details = {"folder": str(capture.folder), "tenant_names": capture.tenant_names}
        for at, rule in enumerate(capture.rules):
            of = f"{rule.sample:g} of {','.join(rule.models)} for {','.join(rule.tenants)}"
            details[f"rule.{at}"] = of
        return details

    def _begun(self, table: Table, rule: CaptureRule) -> None:
        """The first request of a model is about to be kept. Raises Unavailable where that can't be recorded and has to
        be."""
        if self._audit_log is None:
            return
        hashed = [column.tensor for column in table.columns if column.kind == "hash"]
        plain = [column.tensor for column in table.columns if column.kind != "hash"]
        details = {
            "version": str(table.version),
            "sample": f"{rule.sample:g}",
            "tenants": ",".join(rule.tenants),
            "tensors": ",".join(plain),
            "hashed": ",".join(hashed),
        }
        given = {name: text for name, text in details.items() if text}
        self._audit_log.record(
            AuditEvent(action=MODEL, outcome="done", model=table.model, details=given)
        )

    def _record(self, event: AuditEvent) -> None:
        if self._audit_log is None:
            return
        try:
            self._audit_log.record(event)
        except Unavailable as error:
            # while nothing can be recorded, no model's capture begins
            log.warning("%s can't be recorded: %s", event.action, error)
