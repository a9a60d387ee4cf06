"""The guard of drift: are the candidate's outputs distributed otherwise than the stable version's for like requests?

A bettor that learns: from the windows before, it takes the set of bins which the candidate's outputs have fallen into
more often, and bets that they will again, by more than is allowed. If the distributions' distance in total variation is
within that, no set gains in expectation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Final

import msgspec

from penstock.rollouts.decisions import GuardReport
from penstock.rollouts.evidence import Evidence, bets, settle

DIFFERENCES: Final = (1.0, 0.3)
BINS: Final = 16
REMEMBERED: Final = 512
"""Quantities of the stable version that the bins are made of."""
FEW: Final = 64
FORGETS: Final = 0.97


class Drift(msgspec.Struct):
    """What it has seen."""

    evidence: Evidence
    stable: list[int]
    """Answers in the open window, by bin."""
    candidate: list[int]
    excess: list[float]
    """By how much the candidate had more in each bin, in the windows before."""
    windows: int = 0
    last: tuple[float, float] | None = None
    """Shares of the versions' answers in the set that was bet on, of all windows."""


def fresh_drift(allowed: float) -> Drift:
    """Nothing seen."""
    evidence = Evidence.of(len(bets(allowed, DIFFERENCES)))
    return Drift(evidence, [0] * BINS, [0] * BINS, [0.0] * BINS)


class DriftGuard:
    """Classes are put into bins by their number, quantities by the stable version's quantiles."""

    def __init__(self, bound: float, allowed: float, drift: Drift) -> None:
        self.name = "drift"
        self.bound = bound
        self.drift = drift
        self._allowed = allowed
        self._bets = bets(allowed, DIFFERENCES)
        self._recent: deque[float] = deque(maxlen=REMEMBERED)
        self._edges: list[float] = []

    @property
    def evidence(self) -> float:
        """Against the candidate."""
        return self.drift.evidence.total

    def learn(self, summary: float) -> None:
        """A quantity that the stable version has given."""
        self._recent.append(summary)

    def stable(self, summary: float | int) -> None:
        """An answer of the stable version that is compared."""
        self._count(self.drift.stable, summary)

    def candidate(self, summary: float | int) -> None:
        """An answer of the candidate that is compared."""
        self._count(self.drift.candidate, summary)

    def _count(self, bins: list[int], summary: float | int) -> None:
        if isinstance(summary, int):
            bins[summary % BINS] += 1
        elif self._edges:
            bins[bisect_left(self._edges, summary)] += 1

    @property
    def windows(self) -> int:
        """That were compared."""
        return self.drift.windows

    def close(self, least: int) -> None:
        """A window is over."""
        drift = self.drift
        stable, candidate = sum(drift.stable), sum(drift.candidate)
        if stable + candidate and (stable < least or candidate < least):
            return
        if stable:
            chosen = [at for at, excess in enumerate(drift.excess) if excess > 0]
            shares = (
                sum(drift.stable[at] for at in chosen) / stable,
                sum(drift.candidate[at] for at in chosen) / candidate,
            )
            settle(drift.evidence, self._bets, self._allowed, *shares)
            for at in range(BINS):
                difference = drift.candidate[at] / candidate - drift.stable[at] / stable
                drift.excess[at] = FORGETS * drift.excess[at] + difference
            drift.windows += 1
            old = drift.last or shares
            weight = 1 / drift.windows
            drift.last = (
                old[0] + weight * (shares[0] - old[0]),
                old[1] + weight * (shares[1] - old[1]),
            )
        self.discard()

    def discard(self) -> None:
        """A new window begins, with the bins as they are now."""
        self.drift.stable, self.drift.candidate = [0] * BINS, [0] * BINS
        if len(self._recent) >= FEW:
            values = sorted(self._recent)
            self._edges = [values[at * len(values) // BINS] for at in range(1, BINS)]

    def expect_change(self) -> None:
        """The candidate gets more requests from now on."""
        self.drift.evidence.expect_change()

    def report(self) -> GuardReport:
        """For people."""
        drift = self.drift
        stable, candidate = drift.last or (None, None)
        text = "nothing to compare yet"
        if stable is not None and candidate is not None:
            text = (
                f"outputs of which the candidate gave more before: {candidate:.2%} of its answers,"
                f" {stable:.2%} of the stable version's; {self._allowed:.2%} more are allowed"
            )
        return GuardReport(
            self.name, self.evidence, self.bound, drift.windows, stable, candidate, text
        )
