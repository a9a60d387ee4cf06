"""The audit log's metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock.audit.counts import AuditCounts


def audit_metrics(counts: AuditCounts) -> Callable[[], Iterator[Metric]]:
    """Of one log, at each scrape."""

    def collect() -> Iterator[Metric]:
        for name, text, value in (
            ("records", "Audit records that are durable", counts.records),
            ("groups", "Groups in which audit records were flushed to the disk", counts.groups),
            ("lost", "Events that could not be recorded, and went on", counts.lost),
        ):
            yield CounterMetricFamily(f"penstock_audit_{name}", text, value)
        text = "Whether audit records can't be written (1) or can (0)"
        yield GaugeMetricFamily("penstock_audit_failing", text, int(counts.failing))

    return collect
