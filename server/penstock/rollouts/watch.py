"""Counts each request for all guards of a roll-out, over windows of time that they share."""

from __future__ import annotations

import msgspec

from penstock.rollouts.guard import Guard
from penstock.rollouts.guards import Guards, GuardStates, fresh_guards
from penstock.rollouts.observation import CLIENT, Observation, ShadowPair
from penstock.rollouts.plan import RolloutPlan
from penstock.rollouts.split import WHOLE, share_of_percent
from penstock.rollouts.units import SeenUnits, Strikes


class Totals(msgspec.Struct):
    """Requests since the roll-out began."""

    stable: int = 0
    candidate: int = 0
    stable_errors: int = 0
    candidate_errors: int = 0
    candidate_non_finite: int = 0
    uncounted: int = 0
    """Bad answers of the candidate to ids that had enough of them before."""
    in_step: int = 0
    """Of the candidate, since the step began."""


class WatchState(msgspec.Struct):
    """What has to survive a restart."""

    guards: GuardStates
    totals: Totals = msgspec.field(default_factory=Totals)
    seen: bytes = b""
    error_strikes: dict[int, int] = {}
    non_finite_strikes: dict[int, int] = {}


class Watch:
    """`stable`, `candidate` and `pair` are the hot path: what needs a loop waits for the end of a window."""

    def __init__(self, plan: RolloutPlan, state: WatchState) -> None:
        self.totals = state.totals
        self.guards = Guards(plan, state.guards)
        self._state = state
        self._settings = plan.guards
        # both versions run the same requests: then it does not matter whose they are
        self._shadow = plan.mode == "shadow"
        self._window_us = plan.window_us
        self._seen = SeenUnits(state.seen)
        self._error_strikes = Strikes(state.error_strikes)
        self._non_finite_strikes = Strikes(state.non_finite_strikes)
        self._window_ends_us = 0.0
        self._compares = True
        self._compares_latency = True
        self._keep = 1.0
        """Part of the candidate's requests that is compared: no more of them than the stable version has."""
        self._kept = 0.0

    @staticmethod
    def fresh(plan: RolloutPlan) -> WatchState:
        """Nothing seen."""
        return WatchState(fresh_guards(plan))

    def saved(self) -> WatchState:
        """What goes on after a restart."""
        self._state.seen = self._seen.saved()
        return self._state

    def begin_step(self, share: int, now_us: float) -> None:
        """The candidate gets this share from now on."""
        self.totals.in_step = 0
        for guard in self.guards.all:
            guard.expect_change()
        self.reopen(share, now_us)

    def reopen(self, share: int, now_us: float) -> None:
        """A new window begins; the one that was open is not compared."""
        self._window_ends_us = now_us + self._window_us
        self._compares = self._shadow or 0 < share < WHOLE
        self._compares_latency = self._shadow or share <= share_of_percent(
            self._settings.latency_up_to
        )
        others = WHOLE - share
        self._keep = 1.0 if self._shadow or share <= others else others / share
        for guard in self.guards.all:
            guard.discard()
        if self.guards.failing is not None:
            self.guards.failing.reopen()

    def alarm(self) -> Guard | None:
        """The guard that has seen enough."""
        for guard in self.guards.all:
            if guard.evidence >= guard.bound:
                return guard
        return None

    def tick(self, now_us: float) -> bool:
        """Close the window if its time is over. Returns whether a guard may have seen enough."""
        if now_us < self._window_ends_us:
            return False
        self._window_ends_us = now_us + self._window_us
        least = self._settings.window_requests
        for guard in self.guards.all:
            guard.close(least)
        return self.alarm() is not None

    def stable(self, seen: Observation) -> None:
        """An answer of the stable version."""
        self.totals.stable += 1
        guards = self.guards
        bad = not seen.ok
        if bad:
            self.totals.stable_errors += 1
        if guards.failing is not None:
            guards.failing.stable(seen.non_finite or (bad and seen.error_kind != CLIENT))
        if guards.errors is not None:
            guards.errors.rates.stable += 1
            guards.errors.rates.stable_bad += bad
        if guards.non_finite is not None:
            guards.non_finite.rates.stable += 1
            guards.non_finite.rates.stable_bad += seen.non_finite
        if bad:
            return
        first = self._shadow or self._seen.first(seen.unit)
        if guards.latency is not None and seen.latency_us > 0:
            guards.latency.stable(seen.latency_us, first)
        if guards.drift is not None and seen.summary is not None and not seen.non_finite:
            guards.drift.stable(seen.summary, first)

    def candidate(self, seen: Observation, now_us: float) -> bool:
        """An answer of the candidate. Returns whether a guard may have seen enough."""
        totals = self.totals
        totals.candidate += 1
        totals.in_step += 1
        totals.candidate_errors += not seen.ok
        totals.candidate_non_finite += seen.non_finite
        failing = self.guards.failing
        if failing is not None:
            failed = seen.non_finite or (not seen.ok and seen.error_kind != CLIENT)
            if failing.candidate(failed, now_us) and failing.evidence >= failing.bound:
                return True
        if self._compares:
            self._kept += self._keep
            if self._kept >= 1:
                self._kept -= 1
                self._compare(seen)
        return now_us >= self._window_ends_us and self.tick(now_us)

    def _compare(self, seen: Observation) -> None:
        guards = self.guards
        if guards.errors is not None:
            guards.errors.rates.candidate += 1
            if not seen.ok:
                guards.errors.rates.candidate_bad += self._strike(self._error_strikes, seen.unit)
        if guards.non_finite is not None:
            guards.non_finite.rates.candidate += 1
            if seen.non_finite:
                bad = self._strike(self._non_finite_strikes, seen.unit)
                guards.non_finite.rates.candidate_bad += bad
        if not (seen.ok and (self._shadow or self._seen.first(seen.unit))):
            return
        warm = self.totals.in_step > self._settings.warmup_requests
        if guards.latency is not None and seen.latency_us > 0 and warm and self._compares_latency:
            guards.latency.candidate(seen.latency_us)
        if guards.drift is not None and seen.summary is not None and not seen.non_finite:
            guards.drift.candidate(seen.summary)

    def pair(self, pair: ShadowPair, now_us: float) -> bool:
        """Both versions' answers to one request. Returns whether a guard may have seen enough."""
        self.stable(pair.stable)
        mismatches = self.guards.mismatches
        if mismatches is not None and pair.mismatch is not None:
            mismatches.rates.stable += 1
            mismatches.rates.candidate += 1
            mismatches.rates.candidate_bad += pair.mismatch
        return self.candidate(pair.candidate, now_us)

    def _strike(self, strikes: Strikes, unit: int) -> bool:
        counts = self._shadow or strikes.counts(unit)
        self.totals.uncounted += not counts
        return counts
