"""Metrics of issuers of tokens: how many of their keys there are, and whether new ones come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


class IssuerState(msgspec.Struct, frozen=True):
    """Of one issuer."""

    issuer: str
    keys: int
    read_at: float
    """Unix seconds, when its keys came last; 0: never."""
    succeeded: int
    failed: int
    """How often they came, and how often they did not."""


def jwt_metrics(read: Callable[[], Iterable[IssuerState]]) -> Callable[[], Iterator[Metric]]:
    """For a MetricsPage. There are none without issuers."""

    def collect() -> Iterator[Metric]:
        states = list(read())
        if not states:
            return
        keys = GaugeMetricFamily(
            "penstock_jwt_keys",
            "Keys of an issuer of tokens that are known; 0: its tokens can't be checked",
            labels=["issuer"],
        )
        read_at = GaugeMetricFamily(
            "penstock_jwt_keys_timestamp_seconds",
            "When an issuer's keys came last; 0: never",
            labels=["issuer"],
        )
        reads = CounterMetricFamily(
            "penstock_jwt_key_reads",
            "Tries to get an issuer's keys, by outcome",
            labels=["issuer", "outcome"],
        )
        for state in states:
            keys.add_metric([state.issuer], state.keys)
            read_at.add_metric([state.issuer], state.read_at)
            reads.add_metric([state.issuer, "success"], state.succeeded)
            reads.add_metric([state.issuer, "failure"], state.failed)
        yield from (keys, read_at, reads)

    return collect
