"""Metrics of captured requests: what was kept, what was not, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


class Counts(Protocol):
    """As `penstock.capture` keeps them."""

    @property
    def sampled(self) -> int: ...
    @property
    def records(self) -> int: ...
    @property
    def files(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def failing(self) -> bool: ...
    @property
    def skipped(self) -> Mapping[Any, int]: ...
    @property
    def lost(self) -> Mapping[Any, int]: ...


COUNTERS: Final[tuple[tuple[str, str, Callable[[Counts], int]], ...]] = (
    ("penstock_capture_sampled", "Requests whose turn it was to be captured", lambda c: c.sampled),
    (
        "penstock_capture_records",
        "Captured requests that are in complete files",
        lambda c: c.records,
    ),
    ("penstock_capture_files", "Files of captured requests that are complete", lambda c: c.files),
    ("penstock_capture_bytes", "Bytes of those files", lambda c: c.nbytes),
)
BY_REASON: Final[tuple[tuple[str, str, Callable[[Counts], Mapping[Any, int]]], ...]] = (
    (
        "penstock_capture_skipped",
        "Requests whose turn it was that were not to be captured",
        lambda c: c.skipped,
    ),
    (
        "penstock_capture_lost",
        "Captured requests that could not be kept",
        lambda c: c.lost,
    ),
)
QUEUED: Final = ("penstock_capture_queued_bytes", "Captured requests that wait for their writer")
FAILING: Final = (
    "penstock_capture_failing",
    "1 while captured requests can't be written, else 0",
)


def capture_metrics(
    counts: Counts, queued_bytes: Callable[[], int]
) -> Callable[[], Iterator[Metric]]:
    """Of one gateway, at each scrape."""

    def collect() -> Iterator[Metric]:
        for name, text, read in COUNTERS:
            yield CounterMetricFamily(name, text, read(counts))
        for name, text, by_reason in BY_REASON:
            family = CounterMetricFamily(name, text, labels=["reason"])
            for reason, count in by_reason(counts).items():
                family.add_metric([str(reason)], count)
            yield family
        yield GaugeMetricFamily(*QUEUED, queued_bytes())
        yield GaugeMetricFamily(*FAILING, int(counts.failing))

    return collect
