"""Latency metrics that are made only where they are asked for: Triton's histogram and summaries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from penstock.errors import ConfigError
from penstock.metrics_config import MetricsConfig
from penstock.model_config import ConfigDict
from penstock.telemetry.histogram import Histogram
from penstock.telemetry.summary import Summary

FIRST_RESPONSE: Final = "nv_inference_first_response_histogram_ms"
FIRST_RESPONSE_BOUNDS_MS: Final[tuple[float, ...]] = (100.0, 500.0, 2000.0, 5000.0)
_NS_PER_MS: Final = 1_000_000


class Summaries:
    """Of each request that succeeded, in nanoseconds. A batch's times are those of each of its requests."""

    def __init__(self) -> None:
        self.request = Summary()
        self.queue = Summary()
        self.compute_input = Summary()
        self.compute_infer = Summary()
        self.compute_output = Summary()
        self.cache_hit = Summary()
        self.cache_miss = Summary()


class Latencies:
    """What one model shows of them."""

    def __init__(
        self, bounds_ms: Sequence[float] | None, *, summaries: bool, decoupled: bool
    ) -> None:
        """`bounds_ms` of the histogram of first responses; None: there is none. A decoupled model's are told one by
        one, those of all others are the request's."""
        self.first_response_ms = None if bounds_ms is None else Histogram(tuple(bounds_ms))
        self.summaries = Summaries() if summaries else None
        self._decoupled = decoupled

    def record_batch(
        self,
        now_ms: int,
        queue_ns: Sequence[int],
        request_ns: Sequence[int],
        input_ns: int,
        infer_ns: int,
        output_ns: int,
    ) -> None:
        """Count a batch, as `ModelStatistics.record_batch`."""
        if self.first_response_ms is not None and not self._decoupled:
            self.first_response_ms.observe_many([ns / _NS_PER_MS for ns in request_ns])
        if self.summaries is not None and request_ns:
            times, summaries = len(request_ns), self.summaries
            summaries.request.observe_many(request_ns, now_ms)
            summaries.queue.observe_many(queue_ns, now_ms)
            summaries.compute_input.observe(input_ns, times, now_ms)
            summaries.compute_infer.observe(infer_ns, times, now_ms)
            summaries.compute_output.observe(output_ns, times, now_ms)

    def record_hits(
        self,
        now_ms: int,
        queue_ns: Sequence[int],
        request_ns: Sequence[int],
        hit_ns: Sequence[int],
    ) -> None:
        """Count cached answers, as `ModelStatistics.record_hits`."""
        if self.first_response_ms is not None:
            self.first_response_ms.observe_many([ns / _NS_PER_MS for ns in request_ns])
        if self.summaries is not None:
            self.summaries.request.observe_many(request_ns, now_ms)
            self.summaries.queue.observe_many(queue_ns, now_ms)
            self.summaries.cache_hit.observe_many(hit_ns, now_ms)

    def record_miss(self, now_ms: int, ns: int) -> None:
        """Count one, as `ModelStatistics.record_miss`."""
        if self.summaries is not None:
            self.summaries.cache_miss.observe(ns, 1, now_ms)

    def record_first_response(self, ns: int) -> None:
        """A decoupled model's first response came so long after its request."""
        if self.first_response_ms is not None:
            self.first_response_ms.observe(ns / _NS_PER_MS)


def latencies_of(metrics: MetricsConfig, config: ConfigDict) -> Latencies | None:
    """What a model with that complete configuration shows; None: nothing of this. Raises ConfigError."""
    bounds_ms = first_response_bounds_ms(config)
    if not (metrics.histogram_latencies or metrics.summary_latencies):
        return None
    decoupled = bool(config.get("model_transaction_policy", {}).get("decoupled"))
    return Latencies(
        bounds_ms if metrics.histogram_latencies else None,
        summaries=metrics.summary_latencies,
        decoupled=decoupled,
    )


def first_response_bounds_ms(config: ConfigDict) -> tuple[float, ...]:
    """The histogram's bounds, in milliseconds, as the model's `model_metrics` has them. Raises ConfigError."""
    bounds = FIRST_RESPONSE_BOUNDS_MS
    for index, control in enumerate(config.get("model_metrics", {}).get("metric_control", ())):
        path = f"model_metrics.metric_control[{index}]"
        family = control.get("metric_identifier", {}).get("family", "")
        if family != FIRST_RESPONSE:
            raise ConfigError(
                f"{path}.metric_identifier.family is '{family}'; expected {FIRST_RESPONSE}"
            )
        given = tuple(map(float, control.get("histogram_options", {}).get("buckets", ())))
        if not given or any(not low < high for low, high in pairwise(given)):
            raise ConfigError(
                f"{path}.histogram_options.buckets is {list(given)}; expected ascending numbers"
            )
        bounds = given
    return bounds
