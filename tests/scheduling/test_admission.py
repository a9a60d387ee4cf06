"""When a request would begin to run, how far that is trusted, and who may try all the same."""

from __future__ import annotations

from random import Random

import pytest

from penstock.scheduling.admission import (
    LEAST_MARGIN,
    MISS_SHARE,
    MOST_MARGIN,
    PROBE_SHARE,
    SHORTEST_PROBE_PERIOD_US,
    Margin,
    Prober,
    expected_start_us,
)

NOW_US = 1_000_000.0


class Linear:
    """Batches take 1000 µs and 100 µs a row."""

    known = True

    def expected_us(self, rows: int) -> float:
        """What they take."""
        return 1000 + 100 * rows

    def upper_us(self, rows: int) -> float:
        """The same: they keep it."""
        return self.expected_us(rows)


FULL_US = Linear().expected_us(8)


def start_us(rows_ahead: float, *free_in_us: float, batch_rows: float = 8) -> float:
    """How long after now the request begins to run."""
    free_at_us = [NOW_US + free_us for free_us in free_in_us]
    return expected_start_us(NOW_US, rows_ahead, free_at_us, batch_rows, Linear()) - NOW_US


@pytest.mark.parametrize(
    ("rows_ahead", "begins_us"),
    [
        # it still fits into the next batch
        (0, 500),
        (7, 500),
        (8, 500 + FULL_US),
        (15, 500 + FULL_US),
        (16, 500 + 2 * FULL_US),
        (800, 500 + 100 * FULL_US),
    ],
)
def test_one_instance_runs_one_batch_after_the_other(rows_ahead: int, begins_us: float) -> None:
    assert start_us(rows_ahead, 500) == pytest.approx(begins_us)


@pytest.mark.parametrize(
    ("rows_ahead", "begins_us"),
    [(0, 100), (8, 300), (16, 900), (24, 100 + FULL_US), (32, 300 + FULL_US)],
)
def test_several_instances_share_what_is_ahead(rows_ahead: int, begins_us: float) -> None:
    assert start_us(rows_ahead, 900, 100, 300) == pytest.approx(begins_us)


def test_an_instance_that_should_have_been_free_long_ago_is_free_now() -> None:
    assert start_us(0, -5000) == 0
    assert start_us(8, -5000) == FULL_US


def test_without_instances_nothing_is_known_to_be_in_the_way() -> None:
    assert start_us(1000) == 0


def test_batches_of_less_than_what_they_may_hold() -> None:
    assert start_us(8, 0, batch_rows=2) == pytest.approx(4 * Linear().expected_us(2))
    assert start_us(5, 0, batch_rows=2.5) == pytest.approx(2 * Linear().expected_us(2))


# ── the margin ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_margin_stays_between_its_bounds() -> None:
    margin = Margin()
    assert margin.share == LEAST_MARGIN
    margin.kept()
    assert margin.share == LEAST_MARGIN
    for _ in range(1000):
        margin.missed()
    assert margin.share == MOST_MARGIN
    for _ in range(100_000):
        margin.kept()
    assert margin.share == LEAST_MARGIN


@pytest.mark.parametrize(("late", "rises"), [(2 * MISS_SHARE, True), (MISS_SHARE / 2, False)])
def test_it_rises_where_more_are_late_than_may_be(late: float, rises: bool) -> None:
    margin = Margin()
    for _ in range(50):
        margin.missed()
    before = margin.share
    random = Random(3)
    for _ in range(5000):
        if random.random() < late:
            margin.missed()
        else:
            margin.kept()
    assert (margin.share > before + 0.1) == rises
    assert (margin.share < before - 0.1) == (not rises)


def test_it_rests_where_just_as_many_are_late_as_may_be() -> None:
    margin = Margin()
    for _ in range(50):
        margin.missed()
    before = margin.share
    for number in range(10_000):
        if number % round(1 / MISS_SHARE):
            margin.kept()
        else:
            margin.missed()
    assert margin.share == pytest.approx(before, abs=0.01)


def test_it_settles_at_what_keeps_the_promise() -> None:
    margin = Margin()
    random = Random(5)
    missed = 0
    for number in range(40_000):
        # answers take longer than was expected, by up to 80 %
        late = random.uniform(0, 0.8) > margin.share
        missed += late and number >= 20_000
        (margin.missed if late else margin.kept)()
    assert margin.share == pytest.approx(0.8 * (1 - MISS_SHARE), abs=0.02)
    assert missed / 20_000 == pytest.approx(MISS_SHARE, rel=0.2)


# ── probes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def tries(cost_us: float, for_us: float = 10_000_000) -> int:
    """Of a request each millisecond, how many are let through."""
    prober = Prober()
    return sum(prober.may_try(float(now_us), cost_us) for now_us in range(0, round(for_us), 1000))


def test_the_first_may_try_at_once() -> None:
    assert Prober().may_try(0, 1_000_000)


def test_cheap_ones_come_at_the_shortest_period() -> None:
    assert tries(100) == 10_000_000 / SHORTEST_PROBE_PERIOD_US


@pytest.mark.parametrize("cost_us", [20_000, 100_000, 500_000])
def test_dear_ones_take_their_share_of_the_time_and_no_more(cost_us: float) -> None:
    assert tries(cost_us) * cost_us <= PROBE_SHARE * 10_000_000


def test_what_it_really_cost_decides_when_the_next_one_comes() -> None:
    prober = Prober()
    assert prober.may_try(0, 1_000_000)
    prober.took(0, 1000)
    assert not prober.may_try(SHORTEST_PROBE_PERIOD_US - 1, 1_000_000)
    assert prober.may_try(SHORTEST_PROBE_PERIOD_US, 1_000_000)
