"""Metrics of the registry that models come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock.registry.messages import RegistryCounts, RegistryState

GAUGES: Final[tuple[tuple[str, str, Callable[[RegistryCounts], float]], ...]] = (
    (
        "penstock_registry_reachable",
        "Whether the registry answered when it was last asked",
        lambda counts: float(counts.reachable),
    ),
    (
        "penstock_registry_last_contact_timestamp_seconds",
        "When the registry last answered; 0: not yet",
        lambda counts: counts.last_contact_s,
    ),
    (
        "penstock_registry_cache_bytes",
        "Bytes of models' files in the cache, when it was last looked at",
        lambda counts: counts.cache_bytes,
    ),
)
COUNTERS: Final[tuple[tuple[str, str, Callable[[RegistryCounts], int]], ...]] = (
    ("penstock_registry_requests", "Questions to the registry", lambda counts: counts.requests),
    (
        "penstock_registry_failures",
        "Questions that the registry did not answer",
        lambda counts: counts.failures,
    ),
    (
        "penstock_registry_fetches",
        "Versions whose files were fetched",
        lambda counts: counts.fetches,
    ),
    (
        "penstock_registry_failed_fetches",
        "Fetches of a version that failed",
        lambda counts: counts.failed_fetches,
    ),
    (
        "penstock_registry_refused_fetches",
        "Fetches of a version that were refused for what its files are",
        lambda counts: counts.refused_fetches,
    ),
    (
        "penstock_registry_fetched_bytes",
        "Bytes of models' files that were fetched",
        lambda counts: counts.fetched_bytes,
    ),
    (
        "penstock_registry_damaged_files",
        "Files of the cache that were missing or damaged",
        lambda counts: counts.damaged_files,
    ),
    (
        "penstock_registry_evicted_bytes",
        "Bytes of models' files that the cache's limit has cost",
        lambda counts: counts.evicted_bytes,
    ),
    (
        "penstock_registry_tags_written",
        "Tags of versions that were written",
        lambda counts: counts.tags_written,
    ),
)
VERSIONS: Final = (
    "penstock_registry_versions",
    "Versions from the registry that are loaded",
)
AGENT: Final = ("penstock_registry_agent", "Whether the registry agent runs")


def registry_metrics(
    state: Callable[[], RegistryState],
    connected: Callable[[], bool],
    loaded: Callable[[str], int],
) -> Callable[[], Iterator[Metric]]:
    """For a MetricsPage. `loaded`: how many versions of a model are."""

    def collect() -> Iterator[Metric]:
        now = state()
        yield GaugeMetricFamily(*AGENT, value=float(connected()))
        for name, text, read in GAUGES:
            yield GaugeMetricFamily(name, text, value=read(now.counts))
        for name, text, count in COUNTERS:
            yield CounterMetricFamily(name, text, value=count(now.counts))
        versions = GaugeMetricFamily(*VERSIONS, labels=["model"])
        for model in now.models:
            versions.add_metric([model.name], loaded(model.name))
        yield versions

    return collect
