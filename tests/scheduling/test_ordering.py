"""Answers leave in the order of arrival."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.scheduling.ordering import InOrder


def test_an_answer_waits_for_those_before_it() -> None:
    order: InOrder[str, int] = InOrder()
    for name in "abc":
        order.expect(name)
    assert list(order.complete("b", 2)) == []
    assert list(order.complete("a", 1)) == [("a", 1), ("b", 2)]
    assert list(order.complete("c", 3)) == [("c", 3)]


def test_one_that_is_expected_later_does_not_hold_up_earlier_ones() -> None:
    order: InOrder[str, int] = InOrder()
    order.expect("a")
    assert list(order.complete("a", 1)) == [("a", 1)]
    order.expect("b")
    assert list(order.complete("b", 2)) == [("b", 2)]


@given(st.permutations(range(12)))
def test_whatever_the_order_of_completion(completed: list[int]) -> None:
    order: InOrder[int, int] = InOrder()
    for number in range(12):
        order.expect(number)
    left: list[int] = []
    for at, number in enumerate(completed):
        left += [answer for _, answer in order.complete(number, number)]
        finished = set(completed[: at + 1])
        assert left == [n for n in range(12) if finished.issuperset(range(n + 1))]
