"""What one version of a model has done: plain counters, filled once a batch, with Triton's meaning.

The event loop owns them, so there are no locks; what clients see is made when they ask for it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from penstock.caching.counts import CacheCounts
from penstock.scheduling.refusals import Refusal
from penstock.scheduling.sequence_backlog import SequenceCounts
from penstock.scheduling.slo import Decision
from penstock.telemetry.custom_metrics import CustomMetrics
from penstock.telemetry.histogram import BATCH_SIZE_BOUNDS, DURATION_BOUNDS_NS, Histogram
from penstock.telemetry.latencies import Latencies
from penstock.telemetry.process_memory import resident_bytes
from penstock.telemetry.responses import Responses


class FailureReason(enum.Enum):
    """Why a request failed; Triton's values of the label `reason`."""

    REJECTED = "REJECTED"
    """Refused by the queue: full, or too late."""
    CANCELED = "CANCELED"
    """The client went away."""
    BACKEND = "BACKEND"
    """The model failed, or the process that ran it."""
    OTHER = "OTHER"


@dataclass(slots=True)
class BatchTimes:
    """Totals over all batches of one size."""

    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


def _durations() -> Histogram:
    return Histogram(DURATION_BOUNDS_NS)


@dataclass(slots=True, eq=False)
class ModelStatistics:
    """Counters of one model version. Those above `last_inference_ms` are the caller's to set."""

    model: str
    version: str
    tags: Mapping[str, str]
    """The configuration's `metric_tags`; they become labels."""

    ready: bool = False
    pending: int = 0
    """Requests that wait for execution now."""
    queued_bytes: int = 0
    """Input bytes of these."""
    worker_restarts: int = 0
    """Workers started anew after a crash."""
    load_duration_s: float = 0.0
    refused: Mapping[Refusal, int] = field(default_factory=dict)
    """Requests that the scheduler did not let run, or end, by its reason."""
    delayed: Callable[[], int] = int
    """Requests that waited for too long, and went behind the others of their level."""
    worker_pids: Callable[[], Sequence[int]] = tuple
    """Processes that hold the model."""
    devices: Callable[[], Sequence[str]] = tuple
    """Where they run: `cpu`, `cuda:N`."""
    fallbacks: Callable[[], Mapping[str, str]] = dict
    """Why some of them do not run as they were asked to: `device` or `backend` → the reason."""
    latencies: Latencies | None = None
    """What `--metrics-config` asks for beside the counters; None: nothing."""
    sequences: SequenceCounts | None = None
    """Of stateful models."""
    cache: CacheCounts | None = None
    """Of models whose answers are cached."""
    slo: Decision | None = None
    """The last one of the SLO controller, where there is one."""

    last_inference_ms: int = field(default=0, init=False)
    """Wall clock, milliseconds since the epoch; 0 before the first batch."""
    inference_count: int = field(default=0, init=False)
    """Rows of all batches that ran."""
    execution_count: int = field(default=0, init=False)
    """Batches that ran."""
    input_ns: int = field(default=0, init=False)
    """Each request counts its batch's whole time: this and the next two may exceed real time."""
    infer_ns: int = field(default=0, init=False)
    output_ns: int = field(default=0, init=False)
    failed_ns: int = field(default=0, init=False)
    failures: dict[FailureReason, int] = field(
        default_factory=lambda: dict.fromkeys(FailureReason, 0), init=False
    )

    queue_ns: Histogram = field(default_factory=_durations, init=False)
    """Of each request that succeeded: waiting for its batch."""
    request_ns: Histogram = field(default_factory=_durations, init=False)
    """Of each request that succeeded: from arrival to answer."""
    execution_ns: Histogram = field(default_factory=_durations, init=False)
    """Of each batch: a worker's time for it, inputs and outputs included."""
    batch_rows: Histogram = field(default_factory=lambda: Histogram(BATCH_SIZE_BOUNDS), init=False)
    batches: dict[int, BatchTimes] = field(default_factory=dict, init=False)
    """By rows."""
    custom: CustomMetrics = field(default_factory=CustomMetrics, init=False)
    """What a Python model counts itself."""
    responses: Responses = field(default_factory=Responses, init=False)
    """Of decoupled models."""

    def record_batch(
        self,
        now_ms: int,
        rows: int,
        queue_ns: Sequence[int],
        request_ns: Sequence[int],
        input_ns: int,
        infer_ns: int,
        output_ns: int,
    ) -> None:
        """Count an executed batch of `rows` rows.

        `queue_ns` and `request_ns` hold one duration for each request that succeeded; the last
        three are the batch's own.
        """
        requests = len(request_ns)
        self.last_inference_ms = now_ms
        self.inference_count += rows
        self.execution_count += 1
        self.input_ns += requests * input_ns
        self.infer_ns += requests * infer_ns
        self.output_ns += requests * output_ns
        self.queue_ns.observe_many(queue_ns)
        self.request_ns.observe_many(request_ns)
        self.execution_ns.observe(input_ns + infer_ns + output_ns)
        self.batch_rows.observe(rows)
        if self.latencies is not None:
            self.latencies.record_batch(now_ms, queue_ns, request_ns, input_ns, infer_ns, output_ns)
        times = self.batches.get(rows)
        if times is None:
            times = self.batches[rows] = BatchTimes()
        times.count += 1
        times.input_ns += input_ns
        times.infer_ns += infer_ns
        times.output_ns += output_ns

    def record_hits(
        self,
        now_ms: int,
        queue_ns: Sequence[int],
        request_ns: Sequence[int],
        hit_ns: Sequence[int],
    ) -> None:
        """Count requests that succeeded and were not executed: one of each duration for each of them."""
        self.queue_ns.observe_many(queue_ns)
        self.request_ns.observe_many(request_ns)
        assert self.cache is not None, "who tells of hits has set it"
        self.cache.hits += len(hit_ns)
        self.cache.hit_ns += sum(hit_ns)
        if self.latencies is not None:
            self.latencies.record_hits(now_ms, queue_ns, request_ns, hit_ns)

    def record_miss(self, now_ms: int, ns: int) -> None:
        """Count an executed request that was looked up, and whose answer was put in, in so much time."""
        assert self.cache is not None, "who tells of misses has set it"
        self.cache.misses += 1
        self.cache.miss_ns += ns
        if self.latencies is not None:
            self.latencies.record_miss(now_ms, ns)

    def record_first_response(self, ns: int) -> None:
        """A decoupled model's first response came so long after its request."""
        if self.latencies is not None:
            self.latencies.record_first_response(ns)

    def record_failure(self, reason: FailureReason, duration_ns: int) -> None:
        """Count a failed request that took `duration_ns`."""
        self.failures[reason] += 1
        self.failed_ns += duration_ns

    def to_json(self) -> dict[str, Any]:
        """One row of the statistics extension's `model_stats`."""
        requests = self.request_ns.count
        cache = self.cache or CacheCounts()
        executed = requests - cache.hits
        return {
            "name": self.model,
            "version": self.version,
            "last_inference": self.last_inference_ms,
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {
                "success": _duration(requests, self.request_ns.sum),
                "fail": _duration(sum(self.failures.values()), self.failed_ns),
                "queue": _duration(requests, self.queue_ns.sum),
                "compute_input": _duration(executed, self.input_ns),
                "compute_infer": _duration(executed, self.infer_ns),
                "compute_output": _duration(executed, self.output_ns),
                "cache_hit": _duration(cache.hits, cache.hit_ns),
                "cache_miss": _duration(cache.misses, cache.miss_ns),
            },
            "response_stats": self.responses.to_json(),
            "batch_stats": [_batch(rows, self.batches[rows]) for rows in sorted(self.batches)],
            "memory_usage": self._memory_usage(),
        }

    def _memory_usage(self) -> list[dict[str, Any]]:
        nbytes = resident_bytes(self.worker_pids())
        return [{"type": "CPU", "id": 0, "byte_size": nbytes}] if nbytes else []

    def fill_proto(self, message: Message) -> None:
        """Fill an empty `inference.ModelStatistics` of whatever descriptor pool."""
        ParseDict(self.to_json(), message)


def _duration(count: int, ns: float) -> dict[str, int]:
    return {"count": count, "ns": int(ns)}


def _batch(rows: int, times: BatchTimes) -> dict[str, Any]:
    return {
        "batch_size": rows,
        "compute_input": _duration(times.count, times.input_ns),
        "compute_infer": _duration(times.count, times.infer_ns),
        "compute_output": _duration(times.count, times.output_ns),
    }
