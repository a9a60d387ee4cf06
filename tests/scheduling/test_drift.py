"""A change of the service time is noticed at once for all sizes; outliers, noise and new sizes are none."""

from __future__ import annotations

from random import Random

import pytest

from penstock.scheduling.drift import RECENT, Drift
from penstock.scheduling.service_curve import ServiceCurve

SIZES = range(1, 17)


def usual_us(rows: int) -> float:
    return 2_000.0 + 500 * rows


def learnt(random: Random, batches: int = 400) -> ServiceCurve:
    """A curve that has seen all sizes, the last batch at `batches` seconds / 100."""
    curve = ServiceCurve()
    feed(curve, random, 0, batches, 1.0)
    return curve


def feed(curve: ServiceCurve, random: Random, start: int, batches: int, factor: float) -> None:
    for number in range(start, start + batches):
        rows = random.choice(SIZES)
        duration_us = factor * usual_us(rows) * random.uniform(0.8, 1.2)
        curve.observe(rows, duration_us, number * 10_000.0)


@pytest.mark.parametrize("factor", [0.2, 0.5, 2.0, 10.0])
def test_twenty_batches_of_any_size_tell_what_all_take_now(factor: float) -> None:
    random = Random(1)
    curve = learnt(random)
    feed(curve, random, 400, 20, factor)
    for rows in SIZES:
        assert curve.expected_us(rows) == pytest.approx(factor * usual_us(rows), rel=0.35)


def test_outliers_change_nothing() -> None:
    random = Random(2)
    curve = learnt(random)
    for number in range(400, 800):
        rows = random.choice(SIZES)
        factor = 10 if random.random() < 0.1 else random.uniform(0.8, 1.2)
        curve.observe(rows, factor * usual_us(rows), number * 10_000.0)
    for rows in SIZES:
        assert curve.expected_us(rows) == pytest.approx(usual_us(rows), rel=0.25)


def test_larger_batches_than_ever_before_are_no_change() -> None:
    curve = ServiceCurve()
    for number in range(100):
        curve.observe(2, 1_000, number * 10_000.0)
    for number in range(100, 200):
        curve.observe(40 + number % 8, 20_000, number * 10_000.0)
    assert curve.expected_us(2) == 1_000


def test_a_change_is_told_once() -> None:
    drift = Drift()
    for number in range(RECENT):
        drift.observe(number, 3.0 if number > 5 else 1.0)
    change = drift.change()
    assert change is not None
    assert (change.factor, change.since_us) == (3.0, 6)
    assert drift.change() is None
