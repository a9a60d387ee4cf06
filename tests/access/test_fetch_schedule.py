"""When keys are fetched, with simulated time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from penstock.access.fetch_schedule import FetchSchedule


def _schedule() -> FetchSchedule:
    return FetchSchedule(interval_s=300, gap_s=10, keep_s=1000)


def _fetched(schedule: FetchSchedule, now: float) -> FetchSchedule:
    schedule.started(now)
    schedule.succeeded(now)
    return schedule


def test_at_once_then_by_the_interval() -> None:
    """Counted from when the answer is here."""
    schedule = _schedule()
    assert schedule.due_at() <= 0
    schedule.started(0)
    assert schedule.due_at() == float("inf")
    schedule.succeeded(2)
    assert schedule.due_at() == 302


def test_a_question_brings_it_forward_but_not_within_the_gap() -> None:
    """However often somebody asks."""
    schedule = _fetched(_schedule(), 100)
    for _ in range(1000):
        schedule.ask()
    assert schedule.due_at() == 110
    _fetched(schedule, 110)
    assert schedule.due_at() == 410


def test_a_question_during_a_fetch_stands() -> None:
    """The key may have come to the issuer after it was asked."""
    schedule = _schedule()
    schedule.started(0)
    schedule.ask()
    schedule.succeeded(1)
    assert schedule.due_at() == 10


def test_failures_are_tried_again_later_and_later() -> None:
    """Up to the interval."""
    schedule, now, waits = _schedule(), 0.0, []
    for _ in range(8):
        schedule.started(now)
        schedule.failed(now)
        waits.append(schedule.due_at() - now)
        now = schedule.due_at()
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]
    _fetched(schedule, now)
    schedule.started(now + 300)
    schedule.failed(now + 300)
    assert schedule.due_at() == now + 310


def test_keys_are_kept_for_a_time() -> None:
    """From when they came last; then somebody has to wake up and drop them."""
    schedule = _fetched(_schedule(), 0)
    schedule.started(900)
    schedule.failed(900)
    assert not schedule.are_stale(999)
    assert schedule.wake_at() == 910
    schedule.started(995)
    schedule.failed(995)
    assert schedule.wake_at() == 1000
    assert schedule.are_stale(1000)
    schedule.dropped()
    assert not schedule.are_stale(1000)
    assert schedule.wake_at() == schedule.due_at()


@given(st.lists(st.tuples(st.floats(0, 50), st.booleans(), st.booleans()), max_size=60))
def test_nobody_can_make_it_hammer(steps: list[tuple[float, bool, bool]]) -> None:
    """Between two fetches there is the gap, whatever happens."""
    schedule, now, tries = _schedule(), 0.0, []
    for wait, good, ask in steps:
        now += wait
        if ask:
            schedule.ask()
        if schedule.due_at() <= now:
            tries.append(now)
            schedule.started(now)
            schedule.ask()
            (schedule.succeeded if good else schedule.failed)(now)
    assert all(later - earlier >= 10 - 1e-9 for earlier, later in pairwise(tries))
