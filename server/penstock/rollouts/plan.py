"""What a roll-out is to do: from which version to which, in which steps, and what its guards allow."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import isfinite
from typing import Any, Final, Literal

import msgspec

from penstock.errors import InvalidRequest
from penstock.rollouts.checks import expect, expect_share

MAX_STEPS: Final = 100

SHORTEST_WINDOW_S: Final = 0.1
LONGEST_WINDOW_S: Final = 2.5
WINDOWS_PER_STEP: Final = 120
"""Pauses count as windows."""


class GuardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the candidate may do worse than the stable version; None turns a guard off. Shares are from 0 to 1."""

    error_rate: float | None = 0.002
    """Share of requests that may fail beyond the share that fails with the stable version."""
    p99_ratio: float | None = 1.15
    """How many times as long as the stable version's the candidate's latencies may be, at each of
    `latency_quantiles`."""
    latency_quantiles: tuple[float, ...] = (0.5, 0.9, 0.99)
    """Where latencies are compared. A change of all latencies shows at the middle first, one of the tail at its end."""
    latency_up_to: float = 50.0
    """Percent: beyond this share the candidate carries more load than the stable version, and latencies are not
    compared."""
    drift: float | None = 0.05
    """Canary: share of outputs that may be distributed otherwise (distance in total variation of the summaries)."""
    mismatches: float | None = 0.01
    """Shadow: share of requests whose outputs may differ beyond the plan's tolerance."""
    non_finite: float | None = 0.0
    """Share of answers with NaN or infinity beyond the share that the stable version gives."""
    failing: float | None = 0.5
    """A candidate that fails, or gives NaN or infinity, in more than this share of its requests is broken: that is
    found at once, without comparison, and at a share of 100 % too. Not while the stable version fails as well."""
    false_alarm: float = 0.01
    """Chance that any guard takes back a candidate that is as good as allowed, over the whole roll-out."""
    window_s: float = 0.0
    """Versions are compared over windows of at least this length, with pauses of this length between. Bursts that only
    one version's worker has should be shorter. 0: a part of the plan's step, from 0.1 s to 2.5 s."""
    window_requests: int = 10
    """Requests of each version that a window has at least."""
    min_windows: int = 10
    """Windows that are compared in a step before the next one begins, where there is something to compare: in fewer a
    bad candidate may not be told from a good one."""
    warmup_requests: int = 20
    """So many first answers of the candidate in a step are not compared by their latency: caches fill."""

    def __post_init__(self) -> None:
        for name in ("error_rate", "drift", "mismatches", "non_finite"):
            expect_share(f"guards.{name}", getattr(self, name), 0.0, 0.5)
        expect_share("guards.failing", self.failing, 0.05, 0.95)
        expect_share("guards.false_alarm", self.false_alarm, 1e-9, 0.5)
        expect(
            self.p99_ratio is None or (isfinite(self.p99_ratio) and self.p99_ratio >= 1),
            "guards.p99_ratio",
            self.p99_ratio,
            "a number of 1 or more, or null",
        )
        quantiles = self.latency_quantiles
        expect(
            0 < len(quantiles) <= 8 and all(0 < quantile < 1 for quantile in quantiles),
            "guards.latency_quantiles",
            list(quantiles),
            "one to eight numbers between 0 and 1",
        )
        expect(
            0 <= self.latency_up_to <= 100, "guards.latency_up_to", self.latency_up_to, "0 to 100"
        )
        expect(
            isfinite(self.window_s) and self.window_s >= 0,
            "guards.window_s",
            self.window_s,
            "seconds, or 0",
        )
        expect(
            1 <= self.window_requests <= 100_000,
            "guards.window_requests",
            self.window_requests,
            "1 to 100000",
        )
        expect(self.min_windows >= 0, "guards.min_windows", self.min_windows, "0 or more")
        expect(
            self.warmup_requests >= 0,
            "guards.warmup_requests",
            self.warmup_requests,
            "0 or more",
        )


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far an output of the candidate may be from the stable version's, as `numpy.isclose` has it."""

    absolute: float = 1e-4
    relative: float = 1e-2

    def __post_init__(self) -> None:
        for name in ("absolute", "relative"):
            value = getattr(self, name)
            expect(isfinite(value) and value >= 0, f"tolerance.{name}", value, "0 or more")


class RolloutPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One roll-out. Raises InvalidRequest that names the field, wherever it is made."""

    model: str
    stable: int
    """Version that is served now, and to which is gone back."""
    candidate: int
    """Version that is tried."""
    steps: tuple[float, ...] = (1.0, 10.0, 50.0, 100.0)
    """Percent of the requests that the candidate gets, or gets copies of, one after the other."""
    step_s: float = 300.0
    """How long each step lasts at least."""
    min_requests: int = 100
    """Requests that the candidate has answered in a step before the next one begins."""
    mode: Literal["canary", "shadow"] = "canary"
    """canary: clients get the candidate's answers. shadow: they get the stable version's; the candidate gets copies."""
    promote: bool = True
    """Promote the candidate when the last step has gone well; False: stay there until somebody decides."""
    sticky: bool = True
    """A tenant's requests of one id always go to the same version; False: each request is drawn anew. Turn it off
    where few ids make most of the requests: the versions' requests would not be alike."""
    fallback: bool = True
    """A request that the candidate fails is run again on the stable version."""
    tolerance: Tolerance = Tolerance()
    """Shadow: how outputs are compared."""
    guards: GuardSettings = GuardSettings()

    def __post_init__(self) -> None:
        expect(bool(self.model), "model", self.model, "the name of a model")
        for name in ("stable", "candidate"):
            expect(getattr(self, name) >= 1, name, getattr(self, name), "a version, 1 or more")
        if self.stable == self.candidate:
            raise InvalidRequest(
                f"roll-out of '{self.model}': stable and candidate are both version {self.stable}"
            )
        check_steps(self.steps)
        expect(isfinite(self.step_s) and self.step_s > 0, "step_s", self.step_s, "seconds over 0")
        expect(self.min_requests >= 0, "min_requests", self.min_requests, "0 or more")

    @property
    def window_us(self) -> float:
        """Length of a window in which the versions are compared."""
        own_s = self.step_s / WINDOWS_PER_STEP
        seconds = self.guards.window_s or min(max(own_s, SHORTEST_WINDOW_S), LONGEST_WINDOW_S)
        return seconds * 1e6


def plan_of(given: Mapping[str, Any] | bytes) -> RolloutPlan:
    """Checks and completes what a request or file gives: JSON, or what it parses to.

    Raises InvalidRequest that says what is wrong and where.
    """
    try:
        if isinstance(given, bytes):
            return msgspec.json.decode(given, type=RolloutPlan)
        return msgspec.convert(given, RolloutPlan)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidRequest(f"roll-out plan: {error}") from None


def steps_of(text: str) -> tuple[float, ...]:
    """Percentages as the command line has them: `1,10,50,100`, with or without `%`.

    Raises InvalidRequest.
    """
    try:
        steps = tuple(float(part.strip().removesuffix("%")) for part in text.split(","))
    except ValueError:
        raise InvalidRequest(
            f"steps: '{text}' is not a list of percentages, as 1,10,50,100 is"
        ) from None
    check_steps(steps)
    return steps


def check_steps(steps: tuple[float, ...]) -> None:
    """Raises InvalidRequest unless they rise, within what can be split."""
    expect(0 < len(steps) <= MAX_STEPS, "steps", list(steps), f"1 to {MAX_STEPS} percentages")
    for step in steps:
        expect(0.01 <= step <= 100, "steps", step, "percentages from 0.01 to 100")
    rising = all(one < other for one, other in pairwise(steps))
    expect(rising, "steps", list(steps), "percentages that rise")
