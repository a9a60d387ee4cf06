"""The guard of latencies: does the candidate exceed the stable version's quantiles more often than that itself does?

No mean and no variance of latencies is used, which may not exist. A quantile of the stable version is taken from the
windows before; in this one it is counted how many of its requests took longer, and how many of the candidate's took
more than the allowed ratio times longer. What slows both down in a window, or makes the quantile stale, does so to both
counts.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

from penstock.rollouts.decisions import GuardReport
from penstock.rollouts.evidence import Evidence, bets, settle
from penstock.rollouts.latencies import RunningLatencies

DIFFERENCES: Final = (0.5, 0.15, 0.04)


class Slowness(msgspec.Struct):
    """What it has seen."""

    evidence: list[Evidence]
    """For each quantile."""
    stable: list[int]
    """Requests in the open window by how many of the thresholds they exceed."""
    candidate: list[int]
    all_stable: list[int]
    all_candidate: list[int]
    histogram: dict[int, float] = {}
    windows: int = 0


def fresh_slowness(quantiles: int) -> Slowness:
    """Nothing seen."""
    evidence = [Evidence.of(len(bets(0.0, DIFFERENCES))) for _ in range(quantiles)]
    nothing = [0] * (quantiles + 1)
    return Slowness(evidence, nothing[:], nothing[:], nothing[:], nothing[:])


class SlownessGuard:
    """Bets on each of several quantiles. Their mean is its evidence."""

    def __init__(
        self, bound: float, ratio: float, quantiles: tuple[float, ...], slowness: Slowness
    ) -> None:
        self.name = "latency"
        self.bound = bound
        self.slowness = slowness
        self._ratio = ratio
        self._quantiles = tuple(sorted(quantiles))
        self._latencies = RunningLatencies(slowness.histogram)
        self._thresholds: list[float] = []
        self._bets = bets(0.0, DIFFERENCES)

    @property
    def evidence(self) -> float:
        """Against the candidate."""
        evidence = self.slowness.evidence
        return sum(one.total for one in evidence) / len(evidence)

    def learn(self, latency_us: float) -> None:
        """How long the stable version takes."""
        self._latencies.add(latency_us)

    def stable(self, latency_us: float) -> None:
        """An answer of the stable version that is compared."""
        if self._thresholds:
            self.slowness.stable[bisect_left(self._thresholds, latency_us)] += 1

    def candidate(self, latency_us: float) -> None:
        """An answer of the candidate that is compared."""
        if self._thresholds:
            self.slowness.candidate[bisect_left(self._thresholds, latency_us / self._ratio)] += 1

    @property
    def windows(self) -> int:
        """That were compared."""
        return self.slowness.windows

    def close(self, least: int) -> None:
        """A window is over."""
        slowness = self.slowness
        stable, candidate = sum(slowness.stable), sum(slowness.candidate)
        if self._thresholds:
            if stable < least or candidate < least:
                return
            for index, evidence in enumerate(slowness.evidence):
                settle(
                    evidence,
                    self._bets,
                    0.0,
                    sum(slowness.stable[index + 1 :]) / stable,
                    sum(slowness.candidate[index + 1 :]) / candidate,
                )
            slowness.windows += 1
            for index in range(len(slowness.stable)):
                slowness.all_stable[index] += slowness.stable[index]
                slowness.all_candidate[index] += slowness.candidate[index]
        self.discard()

    def discard(self) -> None:
        """A new window begins, with quantiles as they are now."""
        nothing = [0] * (len(self._quantiles) + 1)
        self.slowness.stable, self.slowness.candidate = nothing[:], nothing
        self._thresholds = self._latencies.thresholds(self._quantiles)

    def expect_change(self) -> None:
        """The candidate gets more requests from now on."""
        for evidence in self.slowness.evidence:
            evidence.expect_change()

    def report(self) -> GuardReport:
        """For people; of the quantile that says most against the candidate."""
        slowness = self.slowness
        index = max(range(len(slowness.evidence)), key=lambda at: slowness.evidence[at].total)
        stable: float | None = None
        candidate: float | None = None
        text = "nothing to compare yet"
        if slowness.windows:
            stable = sum(slowness.all_stable[index + 1 :]) / sum(slowness.all_stable)
            candidate = sum(slowness.all_candidate[index + 1 :]) / sum(slowness.all_candidate)
            text = (
                f"{candidate:.2%} of the candidate's requests took longer than {self._ratio:g} times the stable"
                f" version's {self._quantiles[index]:.4g}-quantile, {stable:.2%} of its own longer than that"
            )
        return GuardReport(
            self.name, self.evidence, self.bound, slowness.windows, stable, candidate, text
        )
