"""The guard that needs no comparison: a candidate that fails most of what it gets is taken back in about a second."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.rollouts.decisions import GuardReport
from penstock.rollouts.evidence import RATES, Evidence, settle_failure

SPACING_US: Final = 100_000.0
"""Only one answer in each such time is counted: a batch that fails as a whole, or a hiccup, is not many failures."""
RECENT: Final = 0.2
"""What one more answer of the stable version counts for."""


class Failures(msgspec.Struct):
    """What it has seen."""

    evidence: Evidence
    stable_recently: float = 0.0
    """Share of the stable version's latest answers that were failures."""
    counted: int = 0
    failed: int = 0


def fresh_failures() -> Failures:
    """Nothing seen."""
    return Failures(Evidence.of(len(RATES)))


class FailingGuard:
    """Bets that more than a share of `ceiling` fails, as long as the stable version does not fail too."""

    def __init__(self, bound: float, ceiling: float, failures: Failures) -> None:
        self.name = "failing"
        self.bound = bound
        self.failures = failures
        self._ceiling = ceiling
        self._healthy = ceiling / 2
        self._next_us = 0.0

    @property
    def evidence(self) -> float:
        """Against the candidate."""
        return self.failures.evidence.total

    def stable(self, failed: bool) -> None:
        """An answer of the stable version."""
        failures = self.failures
        failures.stable_recently += RECENT * (failed - failures.stable_recently)

    def candidate(self, failed: bool, now_us: float) -> bool:
        """An answer of the candidate. Returns whether enough is seen."""
        failures = self.failures
        if now_us < self._next_us or failures.stable_recently > self._healthy:
            return False
        self._next_us = now_us + SPACING_US
        settle_failure(failures.evidence, self._ceiling, failed)
        failures.counted += 1
        failures.failed += failed
        return self.evidence >= self.bound

    @property
    def windows(self) -> int:
        """It compares nothing."""
        return 0

    def close(self, least: int) -> None:
        """It has no windows."""

    def discard(self) -> None:
        """It has no windows."""

    def expect_change(self) -> None:
        """The candidate gets more requests from now on."""
        self.failures.evidence.expect_change()

    def reopen(self, alone: bool) -> None:
        """The clock may be another one. `alone`: the stable version gets no requests, so nothing is known of it."""
        self._next_us = 0.0
        if alone:
            self.failures.stable_recently = 0.0

    def report(self) -> GuardReport:
        """For people."""
        failures = self.failures
        share = failures.failed / failures.counted if failures.counted else None
        text = f"{failures.failed} of {failures.counted} answers of the candidate that were looked at were failures"
        return GuardReport(
            self.name, self.evidence, self.bound, failures.counted, None, share, text
        )
