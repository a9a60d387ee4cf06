"""The /metrics page: Triton's families under Triton's names, and our own, made at each scrape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from penstock import __version__
from penstock.telemetry.families import (
    FAILURE_HELP,
    FAILURE_NAME,
    GAUGES,
    HISTOGRAMS,
    HOST,
    OWN_COUNTERS,
    REFUSED_HELP,
    REFUSED_NAME,
    SLO_GAUGES,
    TRITON_COUNTERS,
    Family,
    HistogramFamily,
    SloFamily,
)
from penstock.telemetry.host import HostReader, HostUsage
from penstock.telemetry.statistics import FailureReason, ModelStatistics

Labels = dict[str, str]
LabelledStatistics = Sequence[tuple[Labels, ModelStatistics]]

_OPENMETRICS: Final = "application/openmetrics-text"

_TOTAL_OF_TRITON: Final = re.compile(rb"^(# (?:HELP|TYPE) nv_[a-z_]+)_total ", re.MULTILINE)


class MetricsPage:
    """Renders all models' statistics. `models` is called at each scrape."""

    def __init__(
        self, models: Callable[[], Iterable[ModelStatistics]], host: HostReader | None = None
    ) -> None:
        self._models: Final = models
        self._host: Final = host or HostReader()

    def render(self, accept_header: str) -> tuple[bytes, str]:
        """Body and content type: OpenMetrics where the client accepts it, else Prometheus text."""
        models = [(_labels(model), model) for model in self._models()]
        host = self._host.read()
        if _OPENMETRICS in accept_header:
            encode, content_type = choose_encoder(_OPENMETRICS)
            return encode(_Page(models, host, triton_suffix="_total")), content_type
        encode, content_type = choose_encoder("")
        text = encode(_Page(models, host, triton_suffix=""))
        # The library takes samples as they are, but adds `_total` to the headers of all counters.
        return _TOTAL_OF_TRITON.sub(rb"\1 ", text), content_type


class _Page(Collector):
    """One scrape's families."""

    def __init__(
        self, models: LabelledStatistics, host: HostUsage | None, triton_suffix: str
    ) -> None:
        self._models: Final = models
        self._host: Final = host
        self._triton_suffix: Final = triton_suffix

    def collect(self) -> Iterator[Metric]:
        for family in TRITON_COUNTERS:
            yield self._counter(family, self._triton_suffix)
        yield self._failures()
        for family in OWN_COUNTERS:
            yield self._counter(family, "_total")
        yield self._refused()
        for family in GAUGES:
            yield self._gauge(family)
        for slo_family in SLO_GAUGES:
            yield self._slo_gauge(slo_family)
        for histogram in HISTOGRAMS:
            yield self._histogram(histogram)
        if self._host is not None:
            for name, text, read in HOST:
                yield GaugeMetricFamily(name, text, read(self._host))
        yield InfoMetricFamily("penstock_build", "The server's version", {"version": __version__})

    def _counter(self, family: Family, suffix: str) -> Metric:
        metric = CounterMetricFamily(family.name, family.help)
        for labels, model in self._models:
            metric.add_sample(family.name + suffix, labels, family.read(model))
        return metric

    def _failures(self) -> Metric:
        metric = CounterMetricFamily(FAILURE_NAME, FAILURE_HELP)
        for labels, model in self._models:
            for reason in FailureReason:
                metric.add_sample(
                    FAILURE_NAME + self._triton_suffix,
                    {**labels, "reason": reason.value},
                    model.failures[reason],
                )
        return metric

    def _refused(self) -> Metric:
        metric = CounterMetricFamily(REFUSED_NAME, REFUSED_HELP)
        for labels, model in self._models:
            for reason, count in model.refused.items():
                reasoned = {**labels, "reason": reason.value}
                metric.add_sample(REFUSED_NAME + "_total", reasoned, count)
        return metric

    def _slo_gauge(self, family: SloFamily) -> Metric:
        metric = GaugeMetricFamily(family.name, family.help)
        for labels, model in self._models:
            if model.slo is not None:
                metric.add_sample(family.name, labels, family.read(model.slo))
        return metric

    def _gauge(self, family: Family) -> Metric:
        metric = GaugeMetricFamily(family.name, family.help)
        for labels, model in self._models:
            metric.add_sample(family.name, labels, family.read(model))
        return metric

    def _histogram(self, family: HistogramFamily) -> Metric:
        metric = HistogramMetricFamily(family.name, family.help)
        for labels, model in self._models:
            histogram = family.read(model)
            bounds = [*(repr(bound / family.unit) for bound in histogram.bounds), "+Inf"]
            for le, count in zip(bounds, histogram.cumulative(), strict=True):
                metric.add_sample(family.name + "_bucket", {**labels, "le": le}, count)
            metric.add_sample(family.name + "_count", labels, histogram.count)
            metric.add_sample(family.name + "_sum", labels, histogram.sum / family.unit)
        return metric


def _labels(model: ModelStatistics) -> Labels:
    """`model`, `version`, and the configuration's tags as Triton shows them: `_<tag>`."""
    tags = {"_" + re.sub(r"[^a-zA-Z0-9_]", "_", key): value for key, value in model.tags.items()}
    return {**tags, "model": model.model, "version": model.version}
