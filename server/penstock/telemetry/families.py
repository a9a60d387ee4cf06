"""Which metric families there are: names, help texts, and which statistic each one shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock.caching.counts import CacheCounts
from penstock.scheduling.slo import Decision
from penstock.telemetry.histogram import Histogram
from penstock.telemetry.host import HostUsage
from penstock.telemetry.latencies import Summaries
from penstock.telemetry.statistics import ModelStatistics
from penstock.telemetry.summary import Summary

NS_PER_US: Final = 1_000
_NS_PER_S: Final = 1_000_000_000
_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Family:
    """One number a model: its name without `_total`, and where it comes from."""

    name: str
    help: str
    read: Callable[[ModelStatistics], float]


@dataclass(frozen=True, slots=True)
class SloFamily:
    """One number of a model's last SLO decision."""

    name: str
    help: str
    read: Callable[[Decision], float]


@dataclass(frozen=True, slots=True)
class HistogramFamily:
    """One histogram a model."""

    name: str
    help: str
    read: Callable[[ModelStatistics], Histogram]
    unit: int
    """Divides bounds and sum: durations are counted in nanoseconds, Prometheus wants seconds."""


FAILURE_NAME: Final = "nv_inference_request_failure"
FAILURE_HELP: Final = "Number of failed inference requests, all batch sizes"

LATENCY_SUFFIX: Final = "_duration_us"
"""Of the counters that `counter_latencies=false` leaves out."""

TRITON_COUNTERS: Final = (
    Family(
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        lambda model: model.request_ns.count,
    ),
    Family(
        "nv_inference_count",
        "Number of inferences performed (does not include cached requests)",
        lambda model: model.inference_count,
    ),
    Family(
        "nv_inference_exec_count",
        "Number of model executions performed (does not include cached requests)",
        lambda model: model.execution_count,
    ),
    Family(
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds (includes cached requests)",
        lambda model: model.request_ns.sum // NS_PER_US,
    ),
    Family(
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds (includes cached requests)",
        lambda model: model.queue_ns.sum // NS_PER_US,
    ),
    Family(
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds (does not include cached requests)",
        lambda model: model.input_ns // NS_PER_US,
    ),
    Family(
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds (does not include cached requests)",
        lambda model: model.infer_ns // NS_PER_US,
    ),
    Family(
        "nv_inference_compute_output_duration_us",
        "Cumulative inference compute output duration in microseconds "
        "(does not include cached requests)",
        lambda model: model.output_ns // NS_PER_US,
    ),
)


@dataclass(frozen=True, slots=True)
class CacheFamily:
    """One number of a model whose answers are cached."""

    name: str
    help: str
    read: Callable[[CacheCounts], float]


CACHE_COUNTERS: Final = (
    CacheFamily(
        "nv_cache_num_hits_per_model", "Number of cache hits per model", lambda cache: cache.hits
    ),
    CacheFamily(
        "nv_cache_num_misses_per_model",
        "Number of cache misses per model",
        lambda cache: cache.misses,
    ),
)
CACHE_DURATIONS: Final = (
    CacheFamily(
        "nv_cache_hit_duration_per_model",
        "Total cache hit duration per model, in microseconds",
        lambda cache: cache.hit_ns // NS_PER_US,
    ),
    CacheFamily(
        "nv_cache_miss_duration_per_model",
        "Total cache miss duration per model, in microseconds",
        lambda cache: cache.miss_ns // NS_PER_US,
    ),
)
OWN_CACHE_COUNTERS: Final = (
    CacheFamily(
        "penstock_cache_coalesced",
        "Cache hits that waited for the same request to be executed",
        lambda cache: cache.coalesced,
    ),
    CacheFamily(
        "penstock_cache_evictions",
        "Cached answers that made room for others",
        lambda cache: cache.evictions,
    ),
    CacheFamily(
        "penstock_cache_too_large",
        "Answers that are larger than the whole cache",
        lambda cache: cache.too_large,
    ),
)
CACHE_GAUGES: Final = (
    CacheFamily("penstock_cache_entries", "Cached answers", lambda cache: cache.entries),
    CacheFamily(
        "penstock_cache_bytes",
        "Memory that cached answers take, with their keys",
        lambda cache: cache.nbytes,
    ),
)
"""Of models with `response_cache`, while `--cache-config` is set."""

OWN_COUNTERS: Final = (
    Family(
        "penstock_worker_restarts",
        "Workers started anew after a crash",
        lambda model: model.worker_restarts,
    ),
    Family(
        "penstock_delayed_requests",
        "Requests that waited for too long, and went behind the others of their level",
        lambda model: model.delayed(),
    ),
)

GAUGES: Final = (
    Family(
        "nv_inference_pending_request_count",
        "Instantaneous number of pending requests awaiting execution per-model.",
        lambda model: model.pending,
    ),
    Family(
        "nv_model_load_duration_secs",
        "Model load time in seconds",
        lambda model: model.load_duration_s,
    ),
    Family(
        "penstock_model_ready",
        "1 while the model answers requests, else 0",
        lambda model: model.ready,
    ),
    Family(
        "penstock_queued_bytes",
        "Input bytes of the requests that wait for execution",
        lambda model: model.queued_bytes,
    ),
)

FALLBACK_NAME: Final = "penstock_model_fallback"
FALLBACK_HELP: Final = "1 while the model does not run as it was asked for"

REFUSED_NAME: Final = "penstock_refused_requests"
REFUSED_HELP: Final = "Requests that the scheduler did not let run, or end"

SEQUENCES_NAME: Final = "penstock_sequences"
SEQUENCES_HELP: Final = "Sequences that have a slot of an instance, and that wait for one"
ENDED_SEQUENCES_NAME: Final = "penstock_ended_sequences"
ENDED_SEQUENCES_HELP: Final = "Sequences that ended"

SLO_GAUGES: Final = (
    SloFamily(
        "penstock_slo_measured_p99_seconds",
        "p99 that the SLO controller measured last; 0 for want of requests",
        lambda decision: decision.measured_p99_us / _US_PER_S,
    ),
    SloFamily(
        "penstock_slo_batch_rows",
        "Rows of a batch that the SLO controller allows",
        lambda decision: decision.rows_cap,
    ),
    SloFamily(
        "penstock_slo_delay_seconds",
        "How long the SLO controller lets a request wait for company",
        lambda decision: decision.delay_us / _US_PER_S,
    ),
    SloFamily(
        "penstock_slo_headroom",
        "Share of the objective that the SLO controller plans with",
        lambda decision: decision.headroom,
    ),
)
"""Of models that have `slo_p99_ms`."""

HISTOGRAMS: Final = (
    HistogramFamily(
        "penstock_queue_duration_seconds",
        "Time from a request's arrival to its execution",
        lambda model: model.queue_ns,
        _NS_PER_S,
    ),
    HistogramFamily(
        "penstock_execution_duration_seconds",
        "Time of a worker for a batch, inputs and outputs included",
        lambda model: model.execution_ns,
        _NS_PER_S,
    ),
    HistogramFamily(
        "penstock_request_duration_seconds",
        "Time from a request's arrival to its answer, successful requests only",
        lambda model: model.request_ns,
        _NS_PER_S,
    ),
    HistogramFamily(
        "penstock_batch_size",
        "Rows of a batch",
        lambda model: model.batch_rows,
        1,
    ),
)

FIRST_RESPONSE_HELP: Final = "Duration from request to first response in milliseconds"


@dataclass(frozen=True, slots=True)
class SummaryFamily:
    """One summary a model."""

    name: str
    help: str
    read: Callable[[Summaries], Summary]


SUMMARIES: Final = (
    SummaryFamily(
        "nv_inference_request_summary_us",
        "Summary of inference request duration in microseconds (includes cached requests)",
        lambda summaries: summaries.request,
    ),
    SummaryFamily(
        "nv_inference_queue_summary_us",
        "Summary of inference queuing duration in microseconds (includes cached requests)",
        lambda summaries: summaries.queue,
    ),
    SummaryFamily(
        "nv_inference_compute_input_summary_us",
        "Summary of compute input duration in microseconds (does not include cached requests)",
        lambda summaries: summaries.compute_input,
    ),
    SummaryFamily(
        "nv_inference_compute_infer_summary_us",
        "Summary of compute inference duration in microseconds (does not include cached requests)",
        lambda summaries: summaries.compute_infer,
    ),
    SummaryFamily(
        "nv_inference_compute_output_summary_us",
        "Summary of inference compute output duration in microseconds "
        "(does not include cached requests)",
        lambda summaries: summaries.compute_output,
    ),
)
CACHE_SUMMARIES: Final = (
    SummaryFamily(
        "nv_cache_hit_summary_per_model",
        "Summary of cache hit duration per model, in microseconds",
        lambda summaries: summaries.cache_hit,
    ),
    SummaryFamily(
        "nv_cache_miss_summary_per_model",
        "Summary of cache miss duration per model, in microseconds",
        lambda summaries: summaries.cache_miss,
    ),
)
"""With `summary_latencies=true`."""

HOST: Final[tuple[tuple[str, str, Callable[[HostUsage], float]], ...]] = (
    (
        "nv_cpu_utilization",
        "CPU utilization rate [0.0 - 1.0]",
        lambda host: host.cpu_utilization,
    ),
    (
        "nv_cpu_memory_total_bytes",
        "CPU total memory (RAM), in bytes",
        lambda host: host.memory_total_bytes,
    ),
    (
        "nv_cpu_memory_used_bytes",
        "CPU used memory (RAM), in bytes",
        lambda host: host.memory_used_bytes,
    ),
)
