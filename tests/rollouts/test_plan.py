"""A plan is complete and possible, or its maker is told what is wrong with it, and where."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.errors import InvalidRequest
from penstock.rollouts.plan import GuardSettings, RolloutPlan, Tolerance, plan_of, steps_of

LEAST = {"model": "digits", "stable": 3, "candidate": 4}


def test_what_is_not_given_has_defaults() -> None:
    plan = plan_of(LEAST)
    assert plan == RolloutPlan("digits", 3, 4)
    assert plan.steps == (1.0, 10.0, 50.0, 100.0)
    assert plan.guards.false_alarm == 0.01


def test_json_and_what_it_parses_to_are_the_same() -> None:
    given = {**LEAST, "steps": [5, 50], "guards": {"drift": None}, "tolerance": {"relative": 0.1}}
    plan = plan_of(msgspec.json.encode(given))
    assert plan == plan_of(given)
    assert plan.guards == GuardSettings(drift=None)
    assert plan.tolerance == Tolerance(relative=0.1)
    assert plan_of(msgspec.json.encode(plan)) == plan


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": ""}, "model: expected the name of a model"),
        ({"stable": 0}, "stable: expected a version, 1 or more, got 0"),
        ({"candidate": 3}, "stable and candidate are both version 3"),
        ({"candidate": "4"}, "Expected `int`, got `str` - at `$.candidate`"),
        ({"steps": []}, "steps: expected 1 to 100 percentages"),
        ({"steps": [10, 1]}, "steps: expected percentages that rise, got [10.0, 1.0]"),
        ({"steps": [0]}, "steps: expected percentages from 0.01 to 100, got 0.0"),
        ({"steps": [101]}, "steps: expected percentages from 0.01 to 100, got 101.0"),
        ({"step_s": 0}, "step_s: expected seconds over 0, got 0.0"),
        ({"guards": {"min_windows": -1}}, "guards.min_windows: expected 0 or more"),
        ({"min_requests": -1}, "min_requests: expected 0 or more"),
        ({"mode": "blue"}, "Invalid enum value 'blue' - at `$.mode`"),
        ({"step": 1}, "Object contains unknown field `step`"),
        ({"guards": {"p99": 1}}, "unknown field `p99` - at `$.guards`"),
        ({"guards": {"p99_ratio": 0.9}}, "guards.p99_ratio: expected a number of 1 or more"),
        ({"guards": {"error_rate": 2}}, "guards.error_rate: expected a share from 0 to 0.5"),
        ({"guards": {"failing": 0}}, "guards.failing: expected a share from 0.05 to 0.95"),
        ({"guards": {"false_alarm": 0}}, "guards.false_alarm: expected a share"),
        ({"guards": {"latency_quantiles": []}}, "guards.latency_quantiles: expected one to eight"),
        (
            {"guards": {"latency_quantiles": [99]}},
            "guards.latency_quantiles: expected one to eight",
        ),
        ({"guards": {"latency_up_to": 101}}, "guards.latency_up_to: expected 0 to 100"),
        ({"guards": {"window_s": -1}}, "guards.window_s: expected seconds, or 0"),
        ({"guards": {"window_requests": 0}}, "guards.window_requests: expected 1 to 100000"),
        ({"guards": {"warmup_requests": -1}}, "guards.warmup_requests: expected 0 or more"),
        ({"tolerance": {"absolute": -1}}, "tolerance.absolute: expected 0 or more"),
    ],
)
def test_wrong_plan_is_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        plan_of({**LEAST, **given})
    assert told in str(refused.value)


def test_steps_of_the_command_line() -> None:
    assert steps_of("1,10, 50%,100") == (1.0, 10.0, 50.0, 100.0)
    assert steps_of("0.5") == (0.5,)
    for wrong in ("", "1;2", "ten"):
        with pytest.raises(InvalidRequest, match="is not a list of percentages"):
            steps_of(wrong)
    with pytest.raises(InvalidRequest, match="that rise"):
        steps_of("10,10")


@pytest.mark.parametrize(
    ("step_s", "own_s", "window_s"), [(300, 0, 2.5), (1, 0, 0.1), (60, 0, 0.5), (60, 7, 7)]
)
def test_windows_fit_the_steps(step_s: float, own_s: float, window_s: float) -> None:
    plan = RolloutPlan("m", 1, 2, step_s=step_s, guards=GuardSettings(window_s=own_s))
    assert plan.window_us == window_s * 1e6
