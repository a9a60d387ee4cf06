"""Nobody gets rich by fair bets: the mean of the wealth over all that may come is 1, whatever windows are like."""

from __future__ import annotations

from itertools import product
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.rollouts.evidence import RATES, Evidence, bets, settle, settle_failure

SHARES = st.floats(0, 1)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.002, 0.05, 0.4]),
    st.sets(st.integers(0, 6)),
)
def test_versions_that_could_be_swapped_give_no_evidence_in_the_mean(
    windows: list[tuple[float, float]], allowed: float, changes: set[int]
) -> None:
    made = bets(allowed, (1.0, 0.15, 0.03))
    totals = []
    for swaps in product([False, True], repeat=len(windows)):
        evidence = Evidence.of(len(made))
        for index, (window, swap) in enumerate(zip(windows, swaps, strict=True)):
            if index in changes:
                evidence.expect_change()
            stable, candidate = reversed(window) if swap else window
            settle(evidence, made, allowed, stable, candidate)
        assert min(evidence.wealth) >= 0
        totals.append(evidence.total)
    mean = sum(totals) / len(totals)
    assert mean <= 1 + 1e-9
    if not allowed:
        assert mean == pytest.approx(1)


@settings(max_examples=50)
@given(SHARES, SHARES, SHARES)
def test_worse_candidate_is_never_less_evidence(stable: float, one: float, other: float) -> None:
    made = bets(0.01, (1.0, 0.15))
    totals = []
    for candidate in sorted((one, other)):
        evidence = Evidence.of(len(made))
        settle(evidence, made, 0.01, stable, candidate)
        totals.append(evidence.total)
    assert totals[0] <= totals[1]


@pytest.mark.parametrize("ceiling", [0.05, 0.5, 0.95])
def test_candidate_that_fails_as_often_as_it_may_gives_no_evidence_in_the_mean(
    ceiling: float,
) -> None:
    mean = 0.0
    for outcomes in product([False, True], repeat=8):
        evidence = Evidence.of(len(RATES))
        for failed in outcomes:
            settle_failure(evidence, ceiling, failed)
        failures = sum(outcomes)
        mean += ceiling**failures * (1 - ceiling) ** (8 - failures) * evidence.total
    assert mean == pytest.approx(1)


def test_reserve_is_never_used_up_and_opens_for_changes() -> None:
    evidence = Evidence.of(3)
    for _ in range(100_000):
        evidence.bring_in()
    assert 0.05 < evidence.reserve < 0.07
    late = evidence.bring_in()
    evidence.expect_change()
    assert evidence.bring_in() > 1000 * late


def test_candidate_that_was_good_for_long_is_found_when_it_becomes_bad() -> None:
    made = bets(0.002, (1.0, 0.15, 0.03))
    found_after = []
    for good in (0, 1000):
        evidence = Evidence.of(len(made))
        for _ in range(good):
            settle(evidence, made, 0.002, 0.0, 0.0)
        windows = 0
        while evidence.total < 300:
            settle(evidence, made, 0.002, 0.0, 0.1)
            windows += 1
        found_after.append(windows)
    assert found_after[0] <= 13
    assert found_after[1] <= 30


def test_one_window_proves_nothing() -> None:
    made = bets(0.0, (1.0, 0.15, 0.03))
    evidence = Evidence.of(len(made))
    windows = 0
    while evidence.total < 300:
        settle(evidence, made, 0.0, 0.0, 1.0)
        windows += 1
    # a window doubles the wealth at most
    assert windows > log(300, 2)


def test_bets_that_could_win_little_are_not_made() -> None:
    assert {bet.most for bet in bets(0.05, (1.0, 0.3, 0.15))} == {1.0, 0.3}
    assert {bet.most for bet in bets(0.5, (0.3,))} == {1.0}
