"""Counts each request for all guards of a roll-out, over windows of time that they share."""

from __future__ import annotations

import msgspec

from penstock.rollouts.guard import Guard
from penstock.rollouts.guards import Guards, GuardStates, fresh_guards
from penstock.rollouts.observation import CLIENT, Observation, ShadowPair
from penstock.rollouts.plan import RolloutPlan
from penstock.rollouts.split import WHOLE, share_of_percent, watched_of
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
    windows_before: int = 0
    """That were compared before the step began."""


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
        self._errors = state.guards.errors
        self._non_finite = state.guards.non_finite
        self._mismatches = state.guards.mismatches
        self._latency = self.guards.latency
        self._drift = self.guards.drift
        self._failing = self.guards.failing
        self._settings = plan.guards
        self._min_requests = plan.min_requests
        # both versions run the same requests: then it does not matter whose they are
        self._shadow = plan.mode == "shadow"
        self._window_us = plan.window_us
        self._seen = SeenUnits(state.seen)
        self._error_strikes = Strikes(state.error_strikes)
        self._non_finite_strikes = Strikes(state.non_finite_strikes)
        self._window_begins_us = 0.0
        self._window_ends_us = 0.0
        self._compares = True
        self._compares_latency = True
        # as many requests of either version are compared: of the greater part only so many
        self._keep_stable = self._keep_candidate = 1.0
        self._kept_stable = self._kept_candidate = 0.0

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
        self.totals.windows_before = self.guards.windows
        for guard in self.guards.all:
            guard.expect_change()
        self.reopen(share, now_us)

    def reopen(self, share: int, now_us: float) -> None:
        """A new window begins; the one that was open is not compared."""
        self._open_at(now_us)
        self._compares = self._shadow or 0 < share < WHOLE
        self._compares_latency = self._shadow or share <= share_of_percent(
            self._settings.latency_up_to
        )
        if self._compares and not self._shadow:
            # of the stable version's, those that are looked at come here
            stable = (WHOLE - share) * watched_of(share) / WHOLE
            self._keep_stable = min(1.0, share / stable)
            self._keep_candidate = min(1.0, stable / share)
        for guard in self.guards.all:
            guard.discard()
        if self._failing is not None:
            self._failing.reopen(alone=share == WHOLE and not self._shadow)

    @property
    def requests_left(self) -> int:
        """That the candidate has to answer before the step may end."""
        return max(0, self._min_requests - self.totals.in_step)

    @property
    def windows_left(self) -> int:
        """That have to be compared before the step may end."""
        if not self._compares or not self.guards.compare:
            return 0
        compared = self.guards.windows - self.totals.windows_before
        return max(0, self._settings.min_windows - compared)

    @property
    def has_seen_enough(self) -> bool:
        """The step may end, as far as requests go."""
        return not self.requests_left and not self.windows_left

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
        # what one version's worker suffers may last: the next window shall not see the same again
        self._open_at(now_us + self._window_us)
        least = self._settings.window_requests
        for guard in self.guards.all:
            guard.close(least)
        return self.alarm() is not None

    def _open_at(self, begins_us: float) -> None:
        self._window_begins_us = begins_us
        self._window_ends_us = begins_us + self._window_us

    def stable(self, seen: Observation, now_us: float) -> None:
        """An answer of the stable version."""
        totals = self.totals
        totals.stable += 1
        if not seen.ok:
            totals.stable_errors += 1
        if self._failing is not None:
            self._failing.stable(_failed(seen))
        if self._latency is not None and seen.ok and seen.latency_us > 0:
            self._latency.learn(seen.latency_us)
        if self._drift is not None and type(seen.summary) is float:
            self._drift.learn(seen.summary)
        if self._compares and now_us >= self._window_begins_us:
            self._kept_stable += self._keep_stable
            if self._kept_stable >= 1:
                self._kept_stable -= 1
                self._compare_stable(seen)

    def _compare_stable(self, seen: Observation) -> None:
        if self._errors is not None:
            self._errors.stable += 1
            self._errors.stable_bad += not seen.ok
        if self._non_finite is not None:
            self._non_finite.stable += 1
            self._non_finite.stable_bad += seen.non_finite
        if not seen.ok or not (self._shadow or self._seen.first(seen.unit)):
            return
        if self._latency is not None and seen.latency_us > 0:
            self._latency.stable(seen.latency_us)
        if self._drift is not None and seen.summary is not None and not seen.non_finite:
            self._drift.stable(seen.summary)

    def candidate(self, seen: Observation, now_us: float, stable_failed: bool = False) -> bool:
        """An answer of the candidate. Returns whether a guard may have seen enough."""
        totals = self.totals
        totals.candidate += 1
        totals.in_step += 1
        totals.candidate_errors += not seen.ok
        totals.candidate_non_finite += seen.non_finite
        failing = self._failing
        excused = stable_failed or seen.stable_failed
        if failing is not None and not excused and failing.candidate(_failed(seen), now_us):
            return True
        if self._compares and now_us >= self._window_begins_us:
            self._kept_candidate += self._keep_candidate
            if self._kept_candidate >= 1:
                self._kept_candidate -= 1
                self._compare_candidate(seen)
        return now_us >= self._window_ends_us and self.tick(now_us)

    def _compare_candidate(self, seen: Observation) -> None:
        if self._errors is not None:
            self._errors.candidate += 1
            if not seen.ok:
                self._errors.candidate_bad += self._strike(self._error_strikes, seen.unit)
        if self._non_finite is not None:
            self._non_finite.candidate += 1
            if seen.non_finite:
                bad = self._strike(self._non_finite_strikes, seen.unit)
                self._non_finite.candidate_bad += bad
        if not seen.ok or not (self._shadow or self._seen.first(seen.unit)):
            return
        warm = self.totals.in_step > self._settings.warmup_requests
        if self._latency is not None and seen.latency_us > 0 and warm and self._compares_latency:
            self._latency.candidate(seen.latency_us)
        if self._drift is not None and seen.summary is not None and not seen.non_finite:
            self._drift.candidate(seen.summary)

    def pair(self, pair: ShadowPair, now_us: float) -> bool:
        """Both versions' answers to one request. Returns whether a guard may have seen enough."""
        self.stable(pair.stable, now_us)
        mismatches = self._mismatches
        if mismatches is not None and pair.mismatch is not None:
            mismatches.stable += 1
            mismatches.candidate += 1
            mismatches.candidate_bad += pair.mismatch
        return self.candidate(pair.candidate, now_us, _failed(pair.stable))

    def _strike(self, strikes: Strikes, unit: int) -> bool:
        counts = self._shadow or strikes.counts(unit)
        self.totals.uncounted += not counts
        return counts


def _failed(seen: Observation) -> bool:
    return seen.non_finite or not (seen.ok or seen.error_kind == CLIENT)
