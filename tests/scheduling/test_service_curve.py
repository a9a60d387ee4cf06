"""How long a batch takes is learnt soon, kept against outliers, and forgotten when it is no longer so."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.scheduling.service_curve import (
    EXACT_ROWS,
    FRESH_US,
    MAX_AGE_US,
    REFRESH,
    REFRESH_US,
    TRUSTED,
    WINDOW,
    ServiceCurve,
    bucket_of,
)

SPACED_US = 10_000
"""Between two batches: longer than `REFRESH_US`."""


def feed(
    curve: ServiceCurve,
    durations_us: Iterable[float],
    *,
    rows: int = 1,
    start_us: float = 0,
    every_us: float = SPACED_US,
) -> float:
    """Let batches of one size end; when the last one did."""
    now_us = start_us
    for duration_us in durations_us:
        now_us += every_us
        curve.observe(rows, duration_us, now_us)
    return now_us


def learnt(**by_rows: float) -> ServiceCurve:
    """A curve that knows r4=1000: batches of 4 rows take 1000 µs."""
    curve = ServiceCurve()
    for name, duration_us in by_rows.items():
        feed(curve, [duration_us] * TRUSTED, rows=int(name[1:]), every_us=1)
    return curve


# ── what counts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_nothing_is_known_nothing_is_expected() -> None:
    curve = ServiceCurve()
    assert (curve.expected_us(1), curve.upper_us(1), curve.points) == (0, 0, ())
    assert not curve.known


def test_a_size_counts_from_its_third_batch_on() -> None:
    curve = ServiceCurve()
    end_us = feed(curve, [1000, 1000])
    assert not curve.known
    feed(curve, [1000], start_us=end_us)
    assert curve.known
    assert (curve.expected_us(1), curve.upper_us(1)) == (1000, 1000)


def test_a_slow_first_batch_hardly_shows() -> None:
    curve = ServiceCurve()
    feed(curve, [50_000, 1000, 1010])
    assert curve.expected_us(1) <= 1010
    assert curve.upper_us(1) <= 1010


@pytest.mark.parametrize("batches", [4, 6, 8, 12, 60])
def test_a_slow_first_batch_does_not_show_later_either(batches: int) -> None:
    curve = ServiceCurve()
    feed(curve, [50_000] + [1000] * (batches - 1))
    assert (curve.expected_us(1), curve.upper_us(1)) == (1000, 1000)


@pytest.mark.parametrize("seed", range(5))
def test_outliers_hardly_move_it(seed: int) -> None:
    random = Random(seed)
    curve = ServiceCurve()
    expected, upper = [], []
    now_us = 0.0
    for number in range(1000):
        outlier = 10 if random.random() < 0.08 else 1
        now_us = feed(curve, [1000 * outlier * random.uniform(0.9, 1.1)], start_us=now_us)
        if number >= WINDOW:
            expected.append(curve.expected_us(1))
            upper.append(curve.upper_us(1))
    assert 930 < min(expected) <= max(expected) < 1070
    # the upper quartile is an outlier only where a quarter of the window is: less than once in a thousand windows
    assert sorted(upper)[int(0.99 * len(upper))] < 1300


def test_the_upper_one_is_what_most_batches_keep() -> None:
    random = Random(1)
    durations = [random.gauss(1000, 100) for _ in range(2000)]
    curve = ServiceCurve()
    now_us, kept = 0.0, 0
    for duration_us in durations:
        kept += duration_us <= curve.upper_us(1)
        now_us = feed(curve, [duration_us], start_us=now_us)
    assert 0.85 < kept / len(durations) < 0.95


@pytest.mark.parametrize("factor", [0.2, 5])
def test_a_step_shows_within_a_window(factor: float) -> None:
    curve = ServiceCurve()
    end_us = feed(curve, [1000] * 100)
    end_us = feed(curve, [1000 * factor] * (WINDOW // 4), start_us=end_us)
    assert curve.expected_us(1) == 1000
    feed(curve, [1000 * factor] * (WINDOW - WINDOW // 4), start_us=end_us)
    assert curve.expected_us(1) == curve.upper_us(1) == 1000 * factor


def test_what_was_seen_long_ago_is_forgotten() -> None:
    curve = ServiceCurve()
    end_us = feed(curve, [1000] * WINDOW)
    feed(curve, [9000] * (TRUSTED + REFRESH), start_us=end_us + MAX_AGE_US)
    assert curve.expected_us(1) == 9000


# ── sizes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rows", "expected_us"), [(1, 1000), (2, 1000), (3, 1500), (5, 2500), (6, 3000), (50, 3000)]
)
def test_between_sizes_it_interpolates_and_beyond_them_it_is_flat(
    rows: int, expected_us: float
) -> None:
    curve = learnt(r2=1000, r6=3000)
    assert curve.expected_us(rows) == curve.upper_us(rows) == pytest.approx(expected_us)


def test_an_estimate_is_made_anew_when_more_is_known() -> None:
    curve = learnt(r2=1000)
    assert curve.expected_us(6) == 1000
    feed(curve, [3000] * TRUSTED, rows=6)
    assert curve.expected_us(6) == 3000


@given(st.integers(1, 100_000))
def test_sizes_that_share_a_bucket_are_near_each_other(rows: int) -> None:
    bucket = bucket_of(rows)
    assert rows <= bucket <= rows * (1 + 1 / EXACT_ROWS)
    assert bucket_of(bucket) == bucket
    assert rows > EXACT_ROWS or bucket == rows


def test_the_memory_is_bounded_by_the_number_of_buckets() -> None:
    assert len({bucket_of(rows) for rows in range(1, 1025)}) <= EXACT_ROWS * 7


def test_a_size_not_seen_for_long_is_held_between_those_that_were() -> None:
    curve = learnt(r1=1000, r4=1600, r8=2400)
    # all got ten times slower, and batches of 4 don't come any more
    start_us = FRESH_US + 100_000
    end_us = feed(curve, [10_000] * WINDOW, rows=1, start_us=start_us)
    feed(curve, [24_000] * WINDOW, rows=8, start_us=end_us)
    assert 10_000 <= curve.expected_us(4) <= 24_000
    assert [point.rows for point in curve.points] == [1, 4, 8]


def test_a_slow_size_not_seen_for_long_takes_no_more_a_row_than_a_smaller_one() -> None:
    curve = learnt(r1=10_000, r8=80_000)
    feed(curve, [1000] * WINDOW, rows=1, start_us=FRESH_US + 100_000)
    assert curve.expected_us(8) == curve.upper_us(8) == 8000


def test_a_fresh_size_is_believed_whatever_the_others_say() -> None:
    curve = learnt(r1=9000, r8=1000)
    assert (curve.expected_us(1), curve.expected_us(8)) == (9000, 1000)


@pytest.mark.parametrize("between_us", [10_000, 500_000, 1_900_000, 5_000_000, 20_000_000])
@pytest.mark.parametrize("pause_us", [100, 100_000])
def test_bursts_of_slow_batches_do_not_add_up(between_us: float, pause_us: float) -> None:
    """One begins at once and fades: its begin changes what is known of all sizes, its end only of those that ran."""
    curve, random = ServiceCurve(), Random(1)
    now_us = next_us = 0.0
    slowness, worst = 1.0, 0.0
    for _ in range(20_000):
        if random.random() < 1 / 300:
            slowness = random.uniform(2, 8)
        slowness = 1 + (slowness - 1) * 0.985
        rows = random.choice((1, 1, 1, 2, 3))
        if now_us >= next_us:
            rows, next_us = 64, now_us + between_us
        duration_us = 200 * (1 + rows / 16) * slowness * random.lognormvariate(0, 0.2)
        now_us += duration_us + pause_us
        curve.observe(rows, duration_us, now_us)
        worst = max(worst, curve.expected_us(64))
    # the slowest batch of one row takes about 3 ms, and 64 rows take no more than 64 of those
    assert 1000 < worst < 64 * 3000


@given(
    st.lists(
        st.tuples(
            st.integers(1, 80),
            st.just(0.0) | st.floats(1, 1e7),
            st.sampled_from([0.0, 1.0, SPACED_US, FRESH_US, MAX_AGE_US]),
        ),
        max_size=150,
    )
)
def test_never_negative_and_within_what_was_seen(
    batches: list[tuple[int, float, float]],
) -> None:
    curve = ServiceCurve()
    now_us = 0.0
    for rows, duration_us, pause_us in batches:
        now_us += pause_us
        curve.observe(rows, duration_us, now_us)
    for rows in (1, 2, 3, 17, 50, 100):
        expected_us, upper_us = curve.expected_us(rows), curve.upper_us(rows)
        assert 0 <= expected_us <= upper_us * (1 + 1e-9)
        assert curve.known or upper_us == 0
    sizes = [point.rows for point in curve.points]
    assert all(low < high for low, high in pairwise(sizes))


# ── how often it looks ──────────────────────────────────────────────────────────────────────────────────────────────


def test_it_looks_again_only_after_some_batches() -> None:
    curve = learnt(r1=1000)
    end_us = feed(curve, [1000] * 10)
    before = curve.points
    looked = 0
    for number in range(REFRESH * 3):
        feed(curve, [1000], start_us=end_us + SPACED_US * number)
        looked += curve.points is not before
        before = curve.points
    assert looked == 3


def test_it_looks_again_only_after_some_time() -> None:
    curve = learnt(r1=1000)
    before, looked = curve.points, 0
    for number in range(1000):
        curve.observe(1, 1000, 100.0 * number)
        looked += curve.points is not before
        before = curve.points
    assert looked == pytest.approx(100_000 / REFRESH_US, abs=2)


def test_the_third_batch_of_a_size_counts_at_once() -> None:
    curve = learnt(r1=1000)
    for _ in range(TRUSTED):
        curve.observe(4, 3000, TRUSTED)
    assert curve.expected_us(4) == 3000
