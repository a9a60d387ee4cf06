"""The audit log's metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock.audit.counts import AuditCounts

COUNTERS: Final[tuple[tuple[str, str, Callable[[AuditCounts], int]], ...]] = (
    ("penstock_audit_records", "Audit records that were made durable", lambda c: c.records),
    (
        "penstock_audit_groups",
        "Groups in which audit records were flushed to the disk",
        lambda c: c.groups,
    ),
    ("penstock_audit_lost", "Events that could not be recorded, under go_on", lambda c: c.lost),
)
FAILING: Final = ("penstock_audit_failing", "1 while audit records can't be written, else 0")


def audit_metrics(counts: AuditCounts) -> Callable[[], Iterator[Metric]]:
    """Of one log, at each scrape."""

    def collect() -> Iterator[Metric]:
        for name, text, read in COUNTERS:
            yield CounterMetricFamily(name, text, read(counts))
        yield GaugeMetricFamily(*FAILING, int(counts.failing))

    return collect
