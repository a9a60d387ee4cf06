"""Simulated roll-outs: good candidates stay, under traffic as unfriendly as that of servers; bad ones are found.

All chance has its seed, and what is asserted has room: `python -m penstock_loadtest rollouts` measures the rates.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from penstock.rollouts.plan import RolloutPlan
from penstock_loadtest.marked import between
from penstock_loadtest.rollouts import (
    CANDIDATE,
    STABLE,
    Measured,
    Outcome,
    Run,
    measure,
    publish,
    run_one,
    simulate,
    upper_bound,
)
from penstock_loadtest.rollouts_cases import EVEN, FAULTS, NOTHING_WRONG, TRAFFICS
from penstock_loadtest.rollouts_traffic import Fault, Traffic, requests_of

PLAN = RolloutPlan("m", STABLE, CANDIDATE, steps=(5, 50, 100), step_s=100)


@pytest.mark.parametrize("traffic", TRAFFICS, ids=lambda traffic: traffic.name[:20])
def test_good_candidate_is_not_taken_back(traffic: Traffic) -> None:
    found = simulate(PLAN, replace(traffic, rate=20.0), NOTHING_WRONG, range(2))
    assert found.taken_back <= 1  # two would be a chance of one in ten thousand


@pytest.mark.parametrize(
    ("fault", "guard", "requests"),
    [
        (Fault("fails", fails=1.0), "failing", 60),
        (Fault("fails a fifth", fails=0.2), "errors", 2_500),
        (Fault("slows", slows=1.6), "latency", 4_000),
        (Fault("NaN", non_finite=1.0), "failing", 60),
        (Fault("some NaN", non_finite=0.1), "non_finite", 2_500),
        (Fault("drifts", drifts=0.5), "drift", 4_000),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else None,
)
def test_bad_candidate_is_taken_back(fault: Fault, guard: str, requests: int) -> None:
    run = run_one(PLAN, replace(EVEN, rate=50.0), fault, seed=1)
    assert run.guard == guard
    assert run.requests <= requests


def test_candidate_that_becomes_bad_is_taken_back_soon() -> None:
    late = Fault("late", fails=0.2, from_s=150.0)
    run = run_one(PLAN, replace(EVEN, rate=20.0), late, seed=1)
    assert run.guard == "errors"
    assert run.seconds < PLAN.step_s


def test_same_seed_is_the_same_traffic() -> None:
    one, other, third = (requests_of(TRAFFICS[3], FAULTS[0], 20, seed) for seed in (1, 1, 2))
    assert one == other != third
    assert one.at_us == sorted(one.at_us)


def test_bound_of_a_rate_that_was_not_seen() -> None:
    # the rule of three
    assert upper_bound(0, 1000) == pytest.approx(0.003, rel=0.01)
    assert upper_bound(10, 1000) == pytest.approx(0.0169, rel=0.01)


def test_tables_are_filled_in(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = ("false alarms", "delays")
    page.write_text("\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in marks))
    back = Outcome((Run("errors", 10, 1.5), Run("errors", 20, 2.5)))
    none = Outcome((Run("", 10, 1.5), Run("errors", 20, 2.5)))
    publish(Measured({"even": none}, {"fails": (back, none), "hides": (back, back)}), page)
    assert "| even | 1 of 2 | 97.47% |" in between(page.read_text(), "false alarms")
    assert "| fails | `errors` | 20 (20), 2 s | 20 (20), 2 s; 50% found |" in between(
        page.read_text(), "delays"
    )


def test_all_cases_are_measured() -> None:
    told: list[str] = []
    short = RolloutPlan("m", STABLE, CANDIDATE, steps=(50,), step_s=5)
    traffic, fault = EVEN, FAULTS[0]
    found = measure(1, 1, 1, told.append, short, [traffic], [fault])
    assert set(found.delays) == {fault.name}
    assert next(iter(found.false_alarms)) == "even"
    assert len(told) == 1 + 2 + 1
