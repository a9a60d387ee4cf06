"""Guards of how often something bad happens: errors, values that are not finite, outputs that do not match."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.rollouts.decisions import GuardReport
from penstock.rollouts.evidence import Evidence, bets, settle

DIFFERENCES: Final = (1.0, 0.15, 0.03)


class Rates(msgspec.Struct):
    """How many requests of each version there were in the open window, and in all that were compared; how many bad."""

    evidence: Evidence
    stable: int = 0
    stable_bad: int = 0
    candidate: int = 0
    candidate_bad: int = 0
    windows: int = 0
    all_stable: int = 0
    all_stable_bad: int = 0
    all_candidate: int = 0
    all_candidate_bad: int = 0

    def discard(self) -> None:
        """Forget the open window."""
        self.stable = self.stable_bad = self.candidate = self.candidate_bad = 0

    def compared(self) -> None:
        """Add the open window to all others, and open a new one."""
        self.windows += 1
        self.all_stable += self.stable
        self.all_stable_bad += self.stable_bad
        self.all_candidate += self.candidate
        self.all_candidate_bad += self.candidate_bad
        self.discard()

    @property
    def shares(self) -> tuple[float, float] | None:
        """Of the stable version's and the candidate's requests that were bad; None before any were compared."""
        if not self.windows:
            return None
        return self.all_stable_bad / self.all_stable, self.all_candidate_bad / self.all_candidate


def fresh_rates(allowed: float) -> Rates:
    """Nothing seen."""
    return Rates(Evidence.of(len(bets(allowed, DIFFERENCES))))


class RateGuard:
    """Bets that the candidate's share is greater than the stable version's and what is allowed together."""

    def __init__(self, name: str, bound: float, allowed: float, rates: Rates, what: str) -> None:
        """`what` has happened: the end of "0.3 % of the candidate's answers …"."""
        self.name = name
        self.bound = bound
        self.rates = rates
        self._allowed = allowed
        self._bets = bets(allowed, DIFFERENCES)
        self._what = what

    @property
    def evidence(self) -> float:
        """Against the candidate."""
        return self.rates.evidence.total

    @property
    def windows(self) -> int:
        """That were compared."""
        return self.rates.windows

    def close(self, least: int) -> None:
        """A window is over."""
        rates = self.rates
        if rates.candidate < least or rates.stable < least:
            return
        stable = rates.stable_bad / rates.stable
        candidate = rates.candidate_bad / rates.candidate
        settle(rates.evidence, self._bets, self._allowed, stable, candidate)
        rates.compared()

    def discard(self) -> None:
        """The window is not compared."""
        self.rates.discard()

    def expect_change(self) -> None:
        """The candidate gets more requests from now on."""
        self.rates.evidence.expect_change()

    def report(self) -> GuardReport:
        """For people."""
        shares = self.rates.shares
        text = "nothing to compare yet"
        if shares is not None:
            text = (
                f"{shares[1]:.2%} of the candidate's answers {self._what}, {shares[0]:.2%} of the stable version's;"
                f" {self._allowed:.2%} more are allowed"
            )
        stable, candidate = shares or (None, None)
        return GuardReport(
            self.name, self.evidence, self.bound, self.windows, stable, candidate, text
        )
