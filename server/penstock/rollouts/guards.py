"""Which guards a roll-out has, and how they share the one chance of a false alarm."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.rollouts.drifting import Drift, DriftGuard, fresh_drift
from penstock.rollouts.failing import FailingGuard, Failures, fresh_failures
from penstock.rollouts.guard import Guard
from penstock.rollouts.plan import RolloutPlan
from penstock.rollouts.rates import RateGuard, Rates, fresh_rates
from penstock.rollouts.slowness import Slowness, SlownessGuard, fresh_slowness

PARTS: Final = {
    "errors": 4,
    "latency": 3,
    "non_finite": 2,
    "drift": 2,
    "mismatches": 2,
    "failing": 1,
}
"""Of the chance of a false alarm. Those that are off leave theirs to the others."""


class GuardStates(msgspec.Struct):
    """What has to survive a restart; None of those that are off."""

    errors: Rates | None = None
    non_finite: Rates | None = None
    mismatches: Rates | None = None
    latency: Slowness | None = None
    drift: Drift | None = None
    failing: Failures | None = None


def fresh_guards(plan: RolloutPlan) -> GuardStates:
    """Nothing seen. Outputs are compared one with the other in shadow mode, as distributions else."""
    settings, shadow = plan.guards, plan.mode == "shadow"
    states = GuardStates()
    if settings.error_rate is not None:
        states.errors = fresh_rates(settings.error_rate)
    if settings.non_finite is not None:
        states.non_finite = fresh_rates(settings.non_finite)
    if settings.mismatches is not None and shadow:
        states.mismatches = fresh_rates(settings.mismatches)
    if settings.p99_ratio is not None:
        states.latency = fresh_slowness(len(settings.latency_quantiles))
    if settings.drift is not None and not shadow:
        states.drift = fresh_drift(settings.drift)
    if settings.failing is not None:
        states.failing = fresh_failures()
    return states


class Guards:
    """Those that are on, over their states."""

    def __init__(self, plan: RolloutPlan, states: GuardStates) -> None:
        settings = plan.guards
        on = [name for name in PARTS if getattr(states, name) is not None]
        whole = sum(PARTS[name] for name in on)
        # a false alarm of any: at most the sum of the parts
        bounds = {name: whole / (PARTS[name] * settings.false_alarm) for name in on}

        def rates(name: str, allowed: float | None, what: str) -> RateGuard | None:
            state: Rates | None = getattr(states, name)
            if state is None or allowed is None:
                return None
            return RateGuard(name, bounds[name], allowed, state, what)

        self.errors = rates("errors", settings.error_rate, "were errors")
        self.non_finite = rates("non_finite", settings.non_finite, "held NaN or infinity")
        self.mismatches = rates("mismatches", settings.mismatches, "differed from the other's")
        self.latency: SlownessGuard | None = None
        if states.latency is not None and settings.p99_ratio is not None:
            self.latency = SlownessGuard(
                bounds["latency"], settings.p99_ratio, settings.latency_quantiles, states.latency
            )
        self.drift: DriftGuard | None = None
        if states.drift is not None and settings.drift is not None:
            self.drift = DriftGuard(bounds["drift"], settings.drift, states.drift)
        self.failing: FailingGuard | None = None
        if states.failing is not None and settings.failing is not None:
            self.failing = FailingGuard(bounds["failing"], settings.failing, states.failing)
        every: tuple[Guard | None, ...] = (
            *(self.failing, self.errors, self.non_finite),
            *(self.latency, self.drift, self.mismatches),
        )
        self.all: tuple[Guard, ...] = tuple(guard for guard in every if guard is not None)

    @property
    def compare(self) -> bool:
        """Some guard compares the versions."""
        return any(guard is not self.failing for guard in self.all)

    @property
    def windows(self) -> int:
        """How many times they were compared, by the guard that has done so most: few ids give some guards little."""
        return max((guard.windows for guard in self.all), default=0)
