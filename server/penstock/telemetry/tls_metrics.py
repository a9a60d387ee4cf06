"""Metrics of certificates: when they end, and what became of new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock.workers.supervisor_messages import TlsState

EXPIRY: Final = (
    "penstock_tls_certificate_expiry_timestamp_seconds",
    "When the certificate that is served ends, and the last of the CAs of clients",
)
COUNTERS: Final[tuple[tuple[str, str, Callable[[TlsState], int]], ...]] = (
    (
        "penstock_tls_rotations",
        "Changes of certificates that were taken over",
        lambda state: state.rotations,
    ),
    (
        "penstock_tls_refused_rotations",
        "Changes of certificates that were no good: the old ones went on",
        lambda state: state.refused,
    ),
)


def tls_metrics(read: Callable[[], TlsState | None]) -> Callable[[], Iterator[Metric]]:
    """For a MetricsPage. There are none without TLS."""

    def collect() -> Iterator[Metric]:
        state = read()
        if state is None:
            return
        expiry = GaugeMetricFamily(*EXPIRY, labels=["kind"])
        expiry.add_metric(["server"], state.certificate_expires_at)
        if state.client_ca_expires_at:
            expiry.add_metric(["client_ca"], state.client_ca_expires_at)
        yield expiry
        for name, text, count in COUNTERS:
            yield CounterMetricFamily(name, text, count(state))

    return collect
