"""The /metrics page: Triton's families under Triton's names, and our own, made at each scrape."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from penstock import __version__
from penstock.metrics_config import MetricsConfig
from penstock.telemetry.custom_metrics import exposed, merged
from penstock.telemetry.families import (
    CACHE_COUNTERS,
    CACHE_DURATIONS,
    CACHE_GAUGES,
    CACHE_SUMMARIES,
    ENDED_SEQUENCES_HELP,
    ENDED_SEQUENCES_NAME,
    FAILURE_HELP,
    FAILURE_NAME,
    FALLBACK_HELP,
    FALLBACK_NAME,
    FIRST_RESPONSE_HELP,
    GAUGES,
    HISTOGRAMS,
    HOST,
    LATENCY_SUFFIX,
    NS_PER_US,
    OWN_CACHE_COUNTERS,
    OWN_COUNTERS,
    REFUSED_HELP,
    REFUSED_NAME,
    SEQUENCES_HELP,
    SEQUENCES_NAME,
    SLO_GAUGES,
    SUMMARIES,
    TRITON_COUNTERS,
    CacheFamily,
    Family,
    HistogramFamily,
    SloFamily,
    SummaryFamily,
)
from penstock.telemetry.histogram import Histogram
from penstock.telemetry.host import HostReader, HostUsage
from penstock.telemetry.latencies import FIRST_RESPONSE
from penstock.telemetry.statistics import FailureReason, ModelStatistics

Labels = dict[str, str]
LabelledStatistics = Sequence[tuple[Labels, ModelStatistics]]

_OPENMETRICS: Final = "application/openmetrics-text"

_OURS: Final = re.compile(r"nv_|penstock_")
"""Names that a model's own metrics may not have."""


class MetricsPage:
    """Renders all models' statistics. `models` is called at each scrape."""

    def __init__(
        self,
        models: Callable[[], Iterable[ModelStatistics]],
        host: HostReader | None = None,
        config: MetricsConfig | None = None,
        others: Sequence[Callable[[], Iterable[Metric]]] = (),
        prepare: Callable[[], object] | None = None,
    ) -> None:
        """`others`: what is not of models. Called at each scrape. `prepare`: to be called by a thread before `render`,
        for it takes its time; None: there is no such thing."""
        self.prepare: Final = prepare
        self._others: Final = others
        self._models: Final = models
        self._config: Final = config or MetricsConfig()
        self._host: Final = host or HostReader()

    def render(self, accept_header: str) -> tuple[bytes, str]:
        """Body and content type: OpenMetrics where the client accepts it, else Prometheus text."""
        models = [(_labels(model), model) for model in self._models()]
        host = self._host.read()
        if _OPENMETRICS in accept_header:
            encode, content_type = choose_encoder(_OPENMETRICS)
            return encode(self._page(models, host, "_total")), content_type
        encode, content_type = choose_encoder("")
        text = encode(self._page(models, host, ""))
        # The library takes samples as they are, but adds `_total` to the headers of all counters.
        return _without_total(text, models), content_type

    def _page(self, models: LabelledStatistics, host: HostUsage | None, suffix: str) -> _Page:
        others = tuple(chain.from_iterable(families() for families in self._others))
        return _Page(models, host, self._config, suffix, others)


class _Page(Collector):
    """One scrape's families."""

    def __init__(
        self,
        models: LabelledStatistics,
        host: HostUsage | None,
        config: MetricsConfig,
        triton_suffix: str,
        others: Iterable[Metric],
    ) -> None:
        self._others: Final = others
        self._models: Final = models
        self._cached: Final = [each for each in models if each[1].cache is not None]
        self._config: Final = config
        self._host: Final = host
        self._triton_suffix: Final = triton_suffix

    def collect(self) -> Iterator[Metric]:
        for family in TRITON_COUNTERS:
            if family.name.endswith(LATENCY_SUFFIX) and not self._config.counter_latencies:
                continue
            yield self._counter(family, self._triton_suffix)
        yield self._failures()
        for family in OWN_COUNTERS:
            yield self._counter(family, "_total")
        yield from self._cache()
        yield self._fallbacks()
        yield self._refused()
        yield self._sequences()
        yield self._ended_sequences()
        for family in GAUGES:
            yield self._gauge(family)
        for slo_family in SLO_GAUGES:
            yield self._slo_gauge(slo_family)
        for histogram in HISTOGRAMS:
            yield self._histogram(histogram)
        if self._config.histogram_latencies:
            yield self._first_responses()
        if self._config.summary_latencies:
            for summary in SUMMARIES:
                yield self._summary(summary, self._models)
            for summary in CACHE_SUMMARIES if self._cached else ():
                yield self._summary(summary, self._cached)
        if self._host is not None:
            for name, text, read in HOST:
                yield GaugeMetricFamily(name, text, read(self._host))
        for other in self._others:
            yield self._as_triton_names(other)
        custom = merged(model.custom for _, model in self._models)
        for name, own in custom.items():
            if _OURS.match(name) is None:
                yield exposed(name, own, self._triton_suffix)
        yield InfoMetricFamily("penstock_build", "The server's version", {"version": __version__})

    def _as_triton_names(self, metric: Metric) -> Metric:
        """Samples of Triton's counters have their names' ending by the format of the page."""
        if metric.type == "counter" and metric.name.startswith("nv_"):
            name = metric.name + self._triton_suffix
            metric.samples = [sample._replace(name=name) for sample in metric.samples]
        return metric

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

    def _cache(self) -> Iterator[Metric]:
        """Of the models whose answers are cached, if there are any."""
        if not self._cached:
            return
        for family in CACHE_COUNTERS:
            yield self._of_cache(CounterMetricFamily, family, self._triton_suffix)
        if self._config.counter_latencies:
            for family in CACHE_DURATIONS:
                yield self._of_cache(CounterMetricFamily, family, self._triton_suffix)
        for family in OWN_CACHE_COUNTERS:
            yield self._of_cache(CounterMetricFamily, family, "_total")
        for family in CACHE_GAUGES:
            yield self._of_cache(GaugeMetricFamily, family, "")

    def _of_cache(
        self, kind: Callable[[str, str], Metric], family: CacheFamily, suffix: str
    ) -> Metric:
        metric = kind(family.name, family.help)
        for labels, model in self._cached:
            if model.cache is not None:
                metric.add_sample(family.name + suffix, labels, family.read(model.cache))
        return metric

    def _fallbacks(self) -> Metric:
        metric = GaugeMetricFamily(FALLBACK_NAME, FALLBACK_HELP)
        for labels, model in self._models:
            for reason in model.fallbacks():
                metric.add_sample(FALLBACK_NAME, {**labels, "reason": reason}, 1)
        return metric

    def _refused(self) -> Metric:
        metric = CounterMetricFamily(REFUSED_NAME, REFUSED_HELP)
        for labels, model in self._models:
            for reason, count in model.refused.items():
                reasoned = {**labels, "reason": reason.value}
                metric.add_sample(REFUSED_NAME + "_total", reasoned, count)
        return metric

    def _sequences(self) -> Metric:
        metric = GaugeMetricFamily(SEQUENCES_NAME, SEQUENCES_HELP)
        for labels, model in self._models:
            if (counts := model.sequences) is not None:
                for state, count in (("active", counts.active), ("backlog", counts.backlog)):
                    metric.add_sample(SEQUENCES_NAME, {**labels, "state": state}, count)
        return metric

    def _ended_sequences(self) -> Metric:
        metric = CounterMetricFamily(ENDED_SEQUENCES_NAME, ENDED_SEQUENCES_HELP)
        for labels, model in self._models:
            if model.sequences is not None:
                for reason, count in model.sequences.ended.items():
                    reasoned = {**labels, "reason": reason.value}
                    metric.add_sample(ENDED_SEQUENCES_NAME + "_total", reasoned, count)
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
            add_histogram(metric, labels, family.read(model), family.unit)
        return metric

    def _first_responses(self) -> Metric:
        metric = HistogramMetricFamily(FIRST_RESPONSE, FIRST_RESPONSE_HELP)
        for labels, model in self._models:
            if model.latencies is not None and model.latencies.first_response_ms is not None:
                add_histogram(metric, labels, model.latencies.first_response_ms, 1)
        return metric

    def _summary(self, family: SummaryFamily, models: LabelledStatistics) -> Metric:
        metric = SummaryMetricFamily(family.name, family.help)
        now_ms = time.time_ns() // 1_000_000
        wanted = self._config.summary_quantiles
        for labels, model in models:
            if model.latencies is None or model.latencies.summaries is None:
                continue
            summary = family.read(model.latencies.summaries)
            for quantile, ns in zip(wanted, summary.quantiles(wanted, now_ms), strict=True):
                named = {**labels, "quantile": repr(quantile)}
                metric.add_sample(family.name, named, ns / NS_PER_US)
            metric.add_sample(family.name + "_count", labels, summary.count)
            metric.add_sample(family.name + "_sum", labels, summary.sum // NS_PER_US)
        return metric


def _without_total(text: bytes, models: LabelledStatistics) -> bytes:
    """The page, its headers naming Triton's counters, and models' own, as their samples are named."""
    names = {"nv_[a-z_]+"}
    for _, model in models:
        names |= {re.escape(name) for name in model.custom.families if not name.endswith("_total")}
    pattern = rb"^(# (?:HELP|TYPE) (?:%s))_total " % "|".join(sorted(names)).encode()
    return re.sub(pattern, rb"\1 ", text, flags=re.MULTILINE)


def add_histogram(metric: Metric, labels: Labels, histogram: Histogram, unit: float) -> None:
    """Add a histogram's samples, bounds and sum divided by `unit`."""
    bounds = [*(repr(bound / unit) for bound in histogram.bounds), "+Inf"]
    for le, count in zip(bounds, histogram.cumulative(), strict=True):
        metric.add_sample(metric.name + "_bucket", {**labels, "le": le}, count)
    metric.add_sample(metric.name + "_count", labels, histogram.count)
    metric.add_sample(metric.name + "_sum", labels, histogram.sum / unit)


def _labels(model: ModelStatistics) -> Labels:
    """`model`, `version`, and the configuration's tags as Triton shows them: `_<tag>`."""
    tags = {"_" + re.sub(r"[^a-zA-Z0-9_]", "_", key): value for key, value in model.tags.items()}
    return {**tags, "model": model.model, "version": model.version}
