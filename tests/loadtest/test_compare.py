"""Comparison: the order of turns, and ratios of pairs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_loadtest.cases import Case
from penstock_loadtest.compare import Spread, compare, take_turns
from penstock_loadtest.measurement import Measurement

CASE = Case("identity", "grpc", 64, throughput_goal=2.0)
positive = st.floats(min_value=1e-3, max_value=1e9)


def turn(who: str, per_second: float, cpu_us: float = 50.0, p50: float | None = 9) -> Measurement:
    return Measurement(who, CASE.name, 1000, per_second, cpu_us, median_us=p50)


@dataclass
class Fake:
    """Answers with given rates and notes each turn in a diary shared by all."""

    name: str
    rates: list[float]
    diary: list[str] = field(default_factory=list)

    def measure(self, case: Case, seconds: float) -> Measurement:
        self.diary.append(f"{self.name} {case.name} {seconds:g}")
        return turn(self.name, self.rates.pop(0))


def test_contestants_take_turns_a_b_a_b() -> None:
    diary: list[str] = []
    pair = [Fake("a", [1, 2], diary), Fake("b", [3, 4], diary)]
    seen: list[str] = []
    found = take_turns(CASE, pair, 2, 5, lambda turn: seen.append(turn.contestant))
    assert diary == [f"{who} identity-grpc-64 5" for who in ("a", "b", "a", "b")]
    assert seen == ["a", "b", "a", "b"]
    assert [[turn.per_second for turn in turns] for turns in found] == [[1, 2], [3, 4]]


def test_a_server_against_its_equal_is_one() -> None:
    """A machine that gets slower during the benchmark must not show in the ratio."""
    rates = [900.0, 500.0, 100.0]
    first, second = take_turns(
        CASE, [Fake("a", rates[:]), Fake("a'", rates[:])], 3, 1, lambda _: None
    )
    found = compare(CASE, first, second)
    assert (found.subject, found.baseline) == ("a", "a'")
    for spread in (found.throughput, found.median_latency, found.server_cpu):
        assert spread is not None
        assert (spread.median, spread.low, spread.high) == (1.0, 1.0, 1.0)


def test_ratios_are_of_pairs_not_of_medians() -> None:
    subject = [turn("s", 100), turn("s", 400), turn("s", 900)]
    baseline = [turn("b", 100), turn("b", 100), turn("b", 300)]
    found = compare(CASE, subject, baseline)
    assert found.throughput.rounds == (1.0, 4.0, 3.0)
    assert (found.throughput.median, found.throughput.low, found.throughput.high) == (3, 1, 4)


def test_each_ratio_is_subject_over_baseline() -> None:
    subject, baseline = turn("s", 200, cpu_us=30, p50=10), turn("b", 100, cpu_us=60, p50=40)
    found = compare(CASE, [subject], [baseline])
    assert found.throughput.median == 2
    assert found.server_cpu.median == 0.5
    assert found.median_latency is not None
    assert found.median_latency.median == 0.25


def test_no_latency_ratio_where_one_side_has_none() -> None:
    bare = replace(turn("bare", 100), median_us=None)
    assert compare(CASE, [turn("s", 95)], [bare]).median_latency is None


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=9))
def test_changing_sides_inverts_the_ratios(pairs: list[tuple[float, float]]) -> None:
    a = [turn("a", rate) for rate, _ in pairs]
    b = [turn("b", rate) for _, rate in pairs]
    there, back = compare(CASE, a, b).throughput, compare(CASE, b, a).throughput
    assert there.low == pytest.approx(1 / back.high)
    assert there.high == pytest.approx(1 / back.low)
    assert there.low <= there.median <= there.high


def test_the_median_of_an_even_number_lies_between() -> None:
    assert Spread((1.0, 2.0, 4.0, 9.0)).median == 3.0


def test_the_noisiest_turn_is_told() -> None:
    quiet, loud = turn("s", 100), replace(turn("b", 100), other_cores=1.5)
    assert compare(CASE, [quiet, quiet], [quiet, loud]).noise_cores == 1.5
