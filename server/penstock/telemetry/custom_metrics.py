"""Metrics that Python models make themselves: what all workers of a model told, added up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from penstock.types import MetricChange, MetricKind

_COUNTER_SUFFIX: Final = "_total"


class Sample:
    """One metric."""

    __slots__ = ("bounds", "buckets", "value")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.value = 0.0
        """Of a histogram the sum."""
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)

    def add(self, other: Sample) -> None:
        """Add another one's value. A histogram with other bounds is left out."""
        if other.bounds == self.bounds:
            self.value += other.value
            self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]


class CustomFamily:
    """All metrics of one name."""

    __slots__ = ("description", "kind", "samples")

    def __init__(self, kind: MetricKind, description: str) -> None:
        self.kind = kind
        self.description = description
        self.samples: dict[tuple[tuple[str, str], ...], Sample] = {}

    def sample(self, labels: tuple[tuple[str, str], ...], bounds: tuple[float, ...]) -> Sample:
        """The one with these labels."""
        return self.samples.setdefault(labels, Sample(bounds))


class CustomMetrics:
    """Of one model version."""

    def __init__(self) -> None:
        self.families: dict[str, CustomFamily] = {}

    def apply(self, changes: Iterable[MetricChange]) -> None:
        """What a worker tells. What contradicts what others told is left out."""
        for change in changes:
            family = self.families.setdefault(
                change.family, CustomFamily(change.kind, change.description)
            )
            if family.kind is not change.kind:
                continue
            sample = family.sample(change.labels, change.bounds)
            if change.is_set:
                sample.value = change.value
            elif sample.bounds == change.bounds:
                sample.value += change.value
                for index, count in enumerate(change.buckets):
                    sample.buckets[index] += count


def merged(models: Iterable[CustomMetrics]) -> Mapping[str, CustomFamily]:
    """All models' metrics by name: models may share a name, and their labels need not tell them apart."""
    families: dict[str, CustomFamily] = {}
    for model in models:
        for name, family in model.families.items():
            into = families.setdefault(name, CustomFamily(family.kind, family.description))
            if into.kind is family.kind:
                for labels, sample in family.samples.items():
                    into.sample(labels, sample.bounds).add(sample)
    return families


def exposed(name: str, family: CustomFamily, counter_suffix: str) -> Metric:
    """A family as the page shows it. Counters end in `counter_suffix`, if not in `_total` by themselves."""
    if family.kind is MetricKind.COUNTER:
        counter = CounterMetricFamily(name, family.description)
        full = name if name.endswith(_COUNTER_SUFFIX) else name + counter_suffix
        for labels, sample in family.samples.items():
            counter.add_sample(full, dict(labels), sample.value)
        return counter
    if family.kind is MetricKind.GAUGE:
        gauge = GaugeMetricFamily(name, family.description)
        for labels, sample in family.samples.items():
            gauge.add_sample(name, dict(labels), sample.value)
        return gauge
    histogram = HistogramMetricFamily(name, family.description)
    for labels, sample in family.samples.items():
        bounds = [*map(repr, sample.bounds), "+Inf"]
        counts = list(accumulate(sample.buckets))
        for le, count in zip(bounds, counts, strict=True):
            histogram.add_sample(f"{name}_bucket", {**dict(labels), "le": le}, count)
        histogram.add_sample(f"{name}_count", dict(labels), counts[-1])
        histogram.add_sample(f"{name}_sum", dict(labels), sample.value)
    return histogram
