"""Metrics of secrets: whether the places where they are kept can be read. Their values are in none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock.secrets.source import SecretHealth

LABEL: Final = "secret"
"""The reference."""

Read = Callable[[SecretHealth], float]

GAUGES: Final[tuple[tuple[str, str, Read], ...]] = (
    (
        "penstock_secret_failing",
        "Whether a secret's place can't be read (1), so that the value before goes on, or can (0)",
        lambda secret: int(secret.failing),
    ),
    (
        "penstock_secret_age_seconds",
        "Time since a secret was last seen in its place",
        lambda secret: secret.age_s,
    ),
)
COUNTERS: Final[tuple[tuple[str, str, Read], ...]] = (
    (
        "penstock_secret_failures",
        "Looks at a secret's place that failed",
        lambda secret: secret.failures,
    ),
)


def secret_metrics(health: Callable[[], list[SecretHealth]]) -> Callable[[], Iterator[Metric]]:
    """For a MetricsPage. There are none while no secret was read."""

    def collect() -> Iterator[Metric]:
        secrets = health()
        if not secrets:
            return
        for name, text, read in GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=[LABEL])
            for secret in secrets:
                gauge.add_metric([str(secret.ref)], read(secret))
            yield gauge
        for name, text, read in COUNTERS:
            counter = CounterMetricFamily(name, text, labels=[LABEL])
            for secret in secrets:
                counter.add_metric([str(secret.ref)], read(secret))
            yield counter

    return collect
