"""What is compared: as many requests of either version, over the same time, and only what may be compared then."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.rollouts.latencies import BUCKETS, RunningLatencies, bucket_of, upper_us
from penstock.rollouts.observation import Observation
from penstock.rollouts.plan import RolloutPlan, plan_of
from penstock.rollouts.split import WHOLE, watched_of
from penstock.rollouts.watch import Watch

EVERY_US = 10_000.0


def watch_of(share: int, **guards: Any) -> Watch:
    """At that share. Windows are of a second."""
    given = {"model": "m", "stable": 1, "candidate": 2, "guards": {"window_s": 1, **guards}}
    plan: RolloutPlan = plan_of(given)
    watch = Watch(plan, Watch.fresh(plan))
    watch.begin_step(share, 0.0)
    return watch


def feed(watch: Watch, share: int, count: int, slows: float = 1.0, begin_us: float = 0.0) -> None:
    """Requests split at random, always in the same way."""
    chance = random.Random(1)
    for number in range(count):
        now_us = begin_us + number * EVERY_US
        latency_us = chance.lognormvariate(8, 0.5)
        if chance.randrange(WHOLE) < share:
            watch.candidate(Observation(2, slows * latency_us, summary=number % 10), now_us)
        elif chance.randrange(WHOLE) < watched_of(share):
            watch.stable(Observation(1, latency_us, summary=number % 10), now_us)


@pytest.mark.parametrize("share", [100, 500, 5_000, 9_500])
def test_as_many_requests_of_either_version_are_compared(share: int) -> None:
    watch = watch_of(share)
    feed(watch, share, 60_000)
    errors = watch.guards.errors
    assert errors is not None
    rates = errors.rates
    assert rates.windows > 10
    assert rates.all_candidate == pytest.approx(rates.all_stable, rel=0.15)
    rarer = min(share, WHOLE - share) / WHOLE * 60_000
    # pauses are as long as the shortest window
    assert rarer / 3 < rates.all_candidate < rarer


def test_pauses_between_windows_are_not_compared() -> None:
    watch = watch_of(5_000)
    feed(watch, 5_000, 2_000)  # twenty seconds: ten windows, ten pauses
    errors = watch.guards.errors
    assert errors is not None
    assert errors.rates.windows == 10
    assert errors.rates.all_candidate == pytest.approx(500, rel=0.15)


def test_window_that_a_new_step_cuts_is_not_compared() -> None:
    watch = watch_of(5_000)
    feed(watch, 5_000, 90)
    watch.begin_step(6_000, 900_000.0)
    errors = watch.guards.errors
    assert errors is not None
    assert errors.rates.stable == errors.rates.candidate == 0
    assert errors.rates.windows == 0


def test_window_lasts_until_both_versions_have_had_enough() -> None:
    watch = watch_of(100, window_requests=50)
    feed(watch, 100, 4_000)
    errors = watch.guards.errors
    assert errors is not None
    assert errors.rates.windows == 0
    # of about 40, but for those between two windows
    assert 10 < errors.rates.candidate <= 45


def test_nothing_is_compared_when_all_requests_are_the_candidates() -> None:
    watch = watch_of(WHOLE)
    feed(watch, WHOLE, 5_000, slows=5.0)
    assert watch.alarm() is None
    assert watch.totals.candidate == 5_000
    assert all(guard.report().stable is None for guard in watch.guards.all)


@pytest.mark.parametrize(("share", "found"), [(5_000, True), (6_000, False)])
def test_latencies_are_compared_while_the_candidate_has_less_load(share: int, found: bool) -> None:
    watch = watch_of(share)
    feed(watch, share, 12_000, slows=2.0)
    alarm = watch.alarm()
    assert (alarm is not None and alarm.name == "latency") is found


def test_first_latencies_of_a_step_are_not_compared() -> None:
    watch = watch_of(5_000, warmup_requests=100_000)
    feed(watch, 5_000, 12_000, slows=5.0)
    assert watch.alarm() is None


def test_ratio_that_is_allowed_is_none_to_alarm_at() -> None:
    watch = watch_of(5_000, p99_ratio=2.0)
    feed(watch, 5_000, 12_000, slows=1.9)
    assert watch.alarm() is None


def test_quantities_drift_as_classes_do() -> None:
    watch = watch_of(5_000)
    chance = random.Random(2)
    for number in range(12_000):
        now_us = number * EVERY_US
        if chance.random() < 0.5:
            watch.stable(Observation(1, 0.0, summary=chance.gauss(0, 1)), now_us)
        elif watch.candidate(Observation(2, 0.0, summary=chance.gauss(1, 1)), now_us):
            break
    alarm = watch.alarm()
    assert alarm is not None
    assert alarm.name == "drift"
    assert "outputs of which the candidate gave more" in alarm.report().text


def test_client_that_is_slow_itself_is_counted_once() -> None:
    watch = watch_of(5_000)
    chance = random.Random(3)
    for number in range(12_000):
        now_us = number * EVERY_US
        latency_us = chance.lognormvariate(8, 0.5)
        if number % 3 == 0:
            slow = Observation(2, 9 * latency_us, summary=11, unit=5)
            watch.candidate(slow, now_us)
        elif number % 3 == 1:
            watch.candidate(Observation(2, latency_us, summary=1), now_us)
        else:
            watch.stable(Observation(1, latency_us, summary=1), now_us)
    assert watch.alarm() is None


@settings(max_examples=50)
@given(st.floats(0.01, 1e12, exclude_max=True))
def test_latency_is_in_its_bucket(latency_us: float) -> None:
    bucket = bucket_of(latency_us)
    assert 0 <= bucket < BUCKETS
    assert latency_us <= upper_us(bucket)
    assert bucket == 0 or upper_us(bucket - 1) <= latency_us


def quantiles(values: Iterable[float]) -> list[float]:
    latencies = RunningLatencies({})
    for value in values:
        latencies.add(value)
    return latencies.thresholds((0.99, 0.5))


def test_quantiles_are_those_of_the_latencies() -> None:
    assert quantiles(range(1, 100)) == []
    found = quantiles(range(1, 10_001))
    assert found[0] == pytest.approx(5_000, rel=0.15)
    assert found[1] == pytest.approx(9_900, rel=0.15)


def test_quantiles_follow_what_has_changed() -> None:
    counts: dict[int, float] = {}
    latencies = RunningLatencies(counts)
    found: list[float] = []
    for factor in (1, 10):
        for _ in range(20):
            for number in range(200):
                latencies.add(factor * (1_000.0 + number))
            found = latencies.thresholds((0.5,))
        assert found[0] == pytest.approx(factor * 1_100, rel=0.15)
    assert len(counts) < 40
