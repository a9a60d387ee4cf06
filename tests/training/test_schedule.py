"""Learning rates, early stopping, seeds: pure functions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from penstock_training.config import EvaluationSettings, ScheduleSettings
from penstock_training.early_stopping import Best
from penstock_training.schedule import factor, warmup_steps
from penstock_training.seeds import seed_of

KINDS = some.sampled_from(["cosine", "linear", "constant"])


@given(KINDS, some.floats(0, 30), some.floats(0, 1), some.integers(1, 200))
def test_a_rate_is_a_share_that_rises_and_then_falls(
    kind: str, warmup: float, final: float, total: int
) -> None:
    settings = ScheduleSettings.model_validate({"kind": kind, "warmup": warmup, "final": final})
    rates = [factor(settings, step, total) for step in range(total)]
    assert all(0 <= rate <= 1 + 1e-12 for rate in rates)
    top = warmup_steps(settings, total)
    assert rates[:top] == sorted(rates[:top]) and all(rate > 0 for rate in rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if top < total:
        assert rates[top] == 1
    if top < total - 1 and kind != "constant":
        assert math.isclose(rates[-1], final, abs_tol=1e-12)


def test_cosine_is_half_way_in_the_middle() -> None:
    settings = ScheduleSettings(kind="cosine", warmup=10, final=0.0)
    assert factor(settings, 10 + 50, 111) == pytest.approx(0.5)


def test_warmup_is_a_share_or_a_number() -> None:
    assert warmup_steps(ScheduleSettings(warmup=0.1), 50) == 5
    assert warmup_steps(ScheduleSettings(warmup=7), 50) == 7
    assert warmup_steps(ScheduleSettings(warmup=70), 50) == 50


def test_the_best_is_kept_and_patience_ends() -> None:
    settings = EvaluationSettings(best="accuracy", patience=2, min_delta=0.01)
    best = Best()
    for step, accuracy in enumerate([0.5, 0.7, 0.705, 0.6], 1):
        assert not best.gives_up(settings)
        best = best.after(settings, step, {"accuracy": accuracy})
    assert best == Best(2, {"accuracy": 0.7}, 2)
    assert best.gives_up(settings)


def test_a_loss_is_better_when_it_is_lower() -> None:
    settings = EvaluationSettings()
    best = Best().after(settings, 1, {"loss": 1.0}).after(settings, 2, {"loss": 0.5})
    assert best.step == 2 and not best.gives_up(settings)
    other = EvaluationSettings(best="distance", better="lower")
    assert Best(1, {"distance": 2.0}).after(other, 2, {"distance": 3.0}).step == 1


def test_seeds_depend_on_all_that_they_are_for() -> None:
    seeds = {
        seed_of(*what)
        for what in [(1, "step", 2, 3), (1, "step", 3, 2), (1, "order", 2), (2, "order", 2)]
    }
    assert len(seeds) == 4
    assert seed_of(1, "order", 2) == seed_of(1, "order", 2)
