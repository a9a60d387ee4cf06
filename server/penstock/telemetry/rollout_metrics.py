"""The metrics of roll-outs: each model's last one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock.rollouts.decisions import RolloutReport


class VersionCounts(Protocol):
    """Of one version."""

    requests: int
    errors: int
    non_finite: int


class Counts(Protocol):
    """Of one roll-out."""

    @property
    def stable(self) -> VersionCounts: ...
    @property
    def candidate(self) -> VersionCounts: ...

    passed: int
    fallbacks: int
    seen_failures: int
    dropped_copies: int
    mismatches: int


class View(Protocol):
    """A roll-out, as it is now."""

    @property
    def report(self) -> RolloutReport: ...
    @property
    def counts(self) -> Counts: ...


SHARE: Final = (
    "penstock_rollout_share",
    "Share of a model's requests that the candidate of its roll-out gets, or gets copies of, from 0 to 1",
)
STATE: Final = ("penstock_rollout_state", "1 for the state that a model's last roll-out is in")
EVIDENCE: Final = (
    "penstock_rollout_evidence",
    "Evidence of a guard against the candidate, as part of what it rolls back at: from 0 to 1",
)

OF_VERSIONS: Final[tuple[tuple[str, str, Callable[[VersionCounts], int]], ...]] = (
    (
        "penstock_rollout_requests",
        "Requests of a model that is rolled out and were looked at, by the version that had to answer",
        lambda counts: counts.requests,
    ),
    (
        "penstock_rollout_errors",
        "Those that the version has not answered",
        lambda counts: counts.errors,
    ),
    (
        "penstock_rollout_non_finite",
        "Those that the version has answered with NaN or infinity",
        lambda counts: counts.non_finite,
    ),
)
OF_ROLLOUTS: Final[tuple[tuple[str, str, Callable[[Counts], int]], ...]] = (
    (
        "penstock_rollout_passed",
        "Requests of a stable version that were not looked at, for others were enough to compare with",
        lambda counts: counts.passed,
    ),
    (
        "penstock_rollout_fallbacks",
        "Requests that a candidate failed, and that were run on the stable version",
        lambda counts: counts.fallbacks,
    ),
    (
        "penstock_rollout_seen_failures",
        "Failures of a candidate that clients have seen",
        lambda counts: counts.seen_failures,
    ),
    (
        "penstock_rollout_dropped_copies",
        "Requests of which a candidate got no copy for want of room or time",
        lambda counts: counts.dropped_copies,
    ),
    (
        "penstock_rollout_mismatches",
        "Copies that a candidate answered otherwise than the stable version",
        lambda counts: counts.mismatches,
    ),
)


def rollout_metrics(views: Callable[[], Iterable[View]]) -> Callable[[], Iterator[Metric]]:
    """Of all roll-outs, at each scrape."""

    def collect() -> Iterator[Metric]:
        now = [(view.report, view.counts) for view in views()]
        if not now:
            return
        yield from _gauges([report for report, _ in now])
        for name, text, of_version in OF_VERSIONS:
            family = CounterMetricFamily(name, text, labels=("model", "version", "role"))
            for report, counts in now:
                for role, version, each in (
                    ("stable", report.stable, counts.stable),
                    ("candidate", report.candidate, counts.candidate),
                ):
                    labels = (report.model, str(version), role)
                    family.add_metric(labels, of_version(each))
            yield family
        for name, text, of_rollout in OF_ROLLOUTS:
            family = CounterMetricFamily(name, text, labels=("model",))
            for report, counts in now:
                family.add_metric((report.model,), of_rollout(counts))
            yield family

    return collect


def _gauges(reports: Iterable[RolloutReport]) -> Iterator[Metric]:
    share = GaugeMetricFamily(*SHARE, labels=("model", "version"))
    state = GaugeMetricFamily(*STATE, labels=("model", "state"))
    evidence = GaugeMetricFamily(*EVIDENCE, labels=("model", "guard"))
    for report in reports:
        share.add_metric((report.model, str(report.candidate)), report.share / 10_000)
        state.add_metric((report.model, report.status.value), 1)
        for guard in report.guards:
            part = guard.evidence / guard.bound if guard.bound else 0.0
            evidence.add_metric((report.model, guard.name), min(1.0, part))
    yield share
    yield state
    yield evidence
