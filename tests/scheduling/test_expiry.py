"""Deadlines are told at their time, once, to those who still wait for an answer; the others cost no memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from weakref import WeakSet, ref

from hypothesis import given
from hypothesis import strategies as st

from penstock.scheduling.expiry import SLACK, Expiry


@dataclass(eq=False)
class Request:
    """A request with a deadline."""

    deadline_us: float
    done: bool = False


def watched(*requests: Request) -> Expiry[Request]:
    """A watch over these."""
    expiry = Expiry[Request]()
    for request in requests:
        expiry.add(request)
    return expiry


def answer(expiry: Expiry[Request], request: Request) -> None:
    """As the pool does it."""
    request.done = True
    expiry.answered(request)


def test_each_is_due_at_its_time_and_once() -> None:
    late, early = Request(200), Request(100)
    expiry = watched(late, early)
    assert list(expiry.due(99.9)) == []
    assert list(expiry.due(100)) == [early]
    assert list(expiry.due(199)) == []
    assert list(expiry.due(1000)) == [late]
    assert list(expiry.due(inf)) == []


def test_equal_deadlines_come_in_the_order_of_arrival() -> None:
    requests = [Request(100) for _ in range(5)]
    assert list(watched(*requests).due(100)) == requests


def test_those_with_an_answer_are_never_due() -> None:
    answered, waiting = Request(100), Request(100)
    expiry = watched(answered, waiting)
    answer(expiry, answered)
    assert list(expiry.due(100)) == [waiting]


def test_one_that_is_answered_while_the_others_are_told_is_not_due() -> None:
    first, second = Request(100), Request(101)
    expiry = watched(first, second)
    due = expiry.due(200)
    assert next(due) is first
    answer(expiry, second)
    assert list(due) == []


def test_the_next_deadline() -> None:
    expiry = watched()
    assert expiry.next_us is None
    expiry.add(Request(200))
    expiry.add(Request(100))
    assert expiry.next_us == 100
    assert len(list(expiry.due(100))) == 1
    assert expiry.next_us == 200
    assert len(list(expiry.due(200))) == 1
    assert expiry.next_us is None


def test_what_is_answered_is_forgotten_long_before_its_deadline() -> None:
    """A request and its answer may be megabytes."""
    request = Request(1e12)
    expiry = watched(request)
    alive = ref(request)
    answer(expiry, request)
    del request
    assert alive() is None
    assert list(expiry.due(1e13)) == []


def test_what_is_answered_does_not_stay_in_memory() -> None:
    expiry = Expiry[Request]()
    alive: WeakSet[Request] = WeakSet()
    most = 0
    for number in range(100_000):
        request = Request(1e12 + number)
        alive.add(request)
        expiry.add(request)
        answer(expiry, request)
        del request
        if number % 1000 == 0:
            most = max(most, len(alive))
    assert most <= 2 * SLACK + 2


def test_with_many_that_wait_those_with_an_answer_are_no_more_than_they() -> None:
    waiting = [Request(1e12) for _ in range(1000)]
    expiry = watched(*waiting)
    alive: WeakSet[Request] = WeakSet()
    for number in range(20_000):
        request = Request(1e12 + number)
        alive.add(request)
        expiry.add(request)
        answer(expiry, request)
        del request
    assert len(alive) <= 1000 + 2 * SLACK
    assert list(expiry.due(1e13)) == waiting


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.integers(0, 3)), max_size=300))
def test_exactly_those_without_an_answer_are_told(steps: list[tuple[int, bool, int]]) -> None:
    expiry = Expiry[Request]()
    waiting: list[Request] = []
    now_us = 0
    for left_us, answered, passes_us in steps:
        request = Request(now_us + left_us)
        expiry.add(request)
        waiting.append(request)
        if answered:
            answer(expiry, waiting.pop(left_us % len(waiting)))
        now_us += passes_us
        due = list(expiry.due(now_us))
        assert due == sorted(due, key=lambda r: r.deadline_us)
        assert set(due) == {request for request in waiting if request.deadline_us <= now_us}
        for request in due:
            # the pool answers them with their error
            answer(expiry, request)
        waiting = [request for request in waiting if not request.done]
        earliest = min((request.deadline_us for request in waiting), default=inf)
        assert expiry.next_us is None or expiry.next_us <= earliest
        assert not waiting or expiry.next_us is not None
