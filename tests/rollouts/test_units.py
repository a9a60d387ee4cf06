"""Requests of one id are heard once, and their bad answers twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.rollouts.split import WHOLE, unit_of
from penstock.rollouts.units import FULL, MAX_STRUCK, STRIKES, SeenUnits, Strikes


def test_unit_is_met_for_the_first_time_once() -> None:
    seen = SeenUnits()
    unit = unit_of("acme", "1")
    assert seen.first(unit)
    assert not seen.first(unit)
    assert not SeenUnits(seen.saved()).first(unit)


def test_requests_without_an_id_are_always_new() -> None:
    seen, strikes = SeenUnits(), Strikes({})
    assert all(seen.first(0) and strikes.counts(0) for _ in range(10))
    assert seen.saved() == b""


def test_memory_is_bounded_and_then_begins_anew() -> None:
    seen = SeenUnits()
    met = sum(seen.first(unit * WHOLE) for unit in range(1, 3 * FULL))
    assert met == 3 * FULL - 1
    assert len(seen.saved()) == 8192


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5), max_size=50))
def test_no_unit_has_more_than_its_strikes(units: list[int]) -> None:
    counts: dict[int, int] = {}
    strikes = Strikes(counts)
    counted = [unit for unit in units if strikes.counts(unit)]
    for unit in range(1, 6):
        assert counted.count(unit) == min(units.count(unit), STRIKES)
    assert counted.count(0) == units.count(0)


def test_strikes_of_many_units_are_bounded() -> None:
    counts: dict[int, int] = {}
    strikes = Strikes(counts)
    for unit in range(1, 3 * MAX_STRUCK):
        strikes.counts(unit)
    assert len(counts) == MAX_STRUCK
