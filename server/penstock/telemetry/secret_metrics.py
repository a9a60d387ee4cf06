"""Metrics of secrets: whether the places where they are kept can be read. Their values are in none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock.secrets.source import SecretHealth


def secret_metrics(health: Callable[[], list[SecretHealth]]) -> Callable[[], Iterator[Metric]]:
    """For a MetricsPage. There are none while no secret was read."""

    def collect() -> Iterator[Metric]:
        secrets = health()
        if not secrets:
            return
        labels = ["secret"]
        failing = GaugeMetricFamily(
            "penstock_secret_failing",
            "Whether the last look at a secret's place failed (1), and the value before goes on, or not (0)",
            labels=labels,
        )
        failures = CounterMetricFamily(
            "penstock_secret_failures", "Looks at a secret's place that failed", labels=labels
        )
        age = GaugeMetricFamily(
            "penstock_secret_age_seconds",
            "Since a secret was last seen in its place",
            labels=labels,
        )
        for secret in secrets:
            name = [str(secret.ref)]
            failing.add_metric(name, int(secret.failing))
            failures.add_metric(name, secret.failures)
            age.add_metric(name, secret.age_s)
        yield from (failing, failures, age)

    return collect
