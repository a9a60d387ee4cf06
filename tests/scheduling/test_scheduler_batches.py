"""Which batch for which instance, how far ahead, and books that stay right whatever happens to a batch."""

from __future__ import annotations

from math import inf

import pytest

from penstock.errors import QueueFull
from penstock.scheduling.scheduler import AHEAD_SHARE, AHEAD_US, Scheduler
from simulation import Job
from taught import MS, scheduler, submit, taught, teach


def add(queue: Scheduler[Job], now_us: float, count: int) -> list[Job]:
    """Queue so many of one row that may take any time."""
    return [submit(queue, now_us, inf) for _ in range(count)]


# ── one instance ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("within_ms", "fit"), [(8.5, 8), (4.5, 4), (1.5, 1)])
def test_a_batch_is_cut_where_one_more_row_would_make_a_member_late(
    within_ms: float, fit: int
) -> None:
    queue, now_us = taught({1: 1 * MS, 8: 8 * MS})
    pressing = submit(queue, now_us, within_ms * MS)
    others = add(queue, now_us, 7)
    assert queue.take("i", now_us) == ([pressing, *others[: fit - 1]], [])


def test_a_busy_instance_gets_its_next_batch_shortly_before_its_end() -> None:
    queue, now_us = taught({8: 20 * MS})
    assert queue.ahead_us("i") == 0
    add(queue, now_us, 16)
    queue.take("i", now_us)
    ahead_us = AHEAD_US + AHEAD_SHARE * 20 * MS
    assert queue.ahead_us("i") == pytest.approx(now_us + 20 * MS - ahead_us)
    assert queue.take("i", now_us + 19 * MS)[0]
    assert queue.ahead_us("i") == pytest.approx(now_us + 40 * MS - ahead_us)


def test_a_busy_instance_gets_only_a_full_batch() -> None:
    queue, now_us = taught({8: 20 * MS})
    add(queue, now_us, 15)
    assert len(queue.take("i", now_us)[0]) == 8
    assert queue.take("i", now_us + 19 * MS) == ([], [])
    add(queue, now_us, 1)
    assert len(queue.take("i", now_us + 19 * MS)[0]) == 8


def test_an_idle_one_gets_what_there_is() -> None:
    queue, now_us = taught({8: 20 * MS})
    add(queue, now_us, 3)
    assert queue.next_due_us() == now_us
    assert len(queue.take("i", now_us)[0]) == 3
    assert queue.next_due_us() is None


def test_since_when_an_instance_is_busy_with_its_batch() -> None:
    queue = scheduler(max_rows=1)
    assert queue.busy_since_us("i") is None
    add(queue, 0, 2)
    queue.take("i", 10)
    queue.take("i", 20)
    assert queue.busy_since_us("i") == 10
    queue.finished("i", [], 110)
    # the second one has begun when the first one ended
    assert queue.busy_since_us("i") == 110
    queue.finished("i", [], 300)
    assert queue.busy_since_us("i") is None


def test_a_batch_that_waited_in_its_instance_is_not_charged_for_it() -> None:
    queue = scheduler(max_rows=1)
    add(queue, 0, 4)
    for _ in range(4):
        queue.take("i", 0)
    for number in range(1, 5):
        queue.finished("i", [], number * 10 * MS)
    assert queue.curve.expected_us(1) == 10 * MS


# ── several ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def two_speeds() -> tuple[Scheduler[Job], float]:
    """Of two instances one is ten times slower."""
    queue = scheduler("slow", "fast")
    now_us = teach(queue, {1: 10 * MS, 8: 80 * MS}, instance="slow")
    return queue, teach(queue, {1: 1 * MS, 8: 8 * MS}, now_us, instance="fast")


@pytest.mark.parametrize(("instance", "fit"), [("slow", 2), ("fast", 8)])
def test_each_instance_is_reckoned_by_its_own_speed(instance: str, fit: int) -> None:
    queue, now_us = two_speeds()
    submit(queue, now_us, 25 * MS)
    add(queue, now_us, 7)
    assert len(queue.take(instance, now_us)[0]) == fit


def test_each_instance_looks_ahead_by_its_own_speed() -> None:
    queue, now_us = two_speeds()
    add(queue, now_us, 16)
    for instance, takes_us in (("slow", 80 * MS), ("fast", 8 * MS)):
        queue.take(instance, now_us)
        ahead_us = now_us + takes_us * (1 - AHEAD_SHARE) - AHEAD_US
        assert queue.ahead_us(instance) == pytest.approx(ahead_us)


def test_a_new_instance_is_reckoned_by_what_the_others_know() -> None:
    queue, now_us = taught({8: 20 * MS})
    queue.join("new")
    add(queue, now_us, 8)
    queue.take("new", now_us)
    assert queue.loads["new"].free_at_us == now_us + 20 * MS


def test_one_that_has_left_is_reckoned_with_no_more() -> None:
    queue, now_us = taught({8: 20 * MS})
    queue.join("other")
    add(queue, now_us, 16)
    queue.take("i", now_us)
    assert queue.expected_wait_us(Job(now_us), now_us) == 20 * MS
    queue.leave("i")
    assert queue.expected_wait_us(Job(now_us), now_us) == 20 * MS
    queue.take("other", now_us)
    assert queue.expected_wait_us(Job(now_us), now_us) == 20 * MS
    # its batch may still end, when the news of its death come later
    assert queue.finished("i", [], now_us) is None
    queue.leave("i")


# ── batches that don't run, and requests that run again ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("instance", ["slow", "fast"])
@pytest.mark.parametrize("given_before", [0, 1])
def test_what_was_not_run_leaves_no_trace(instance: str, given_before: int) -> None:
    queue, now_us = two_speeds()
    add(queue, now_us, 16)
    for _ in range(given_before):
        queue.take(instance, now_us)
    load = queue.loads[instance]
    running, free_at_us = list(load.running), max(load.free_at_us, now_us)
    queue.take(instance, now_us)
    queue.not_run(instance)
    assert (list(load.running), load.free_at_us) == (running, free_at_us)


def test_who_runs_again_goes_first_and_no_bound_refuses_it() -> None:
    queue = scheduler(max_rows=2, max_queue_requests=2)
    first, second = add(queue, 0, 2)
    assert queue.take("i", 0) == ([first, second], [])
    others = add(queue, 5, 2)
    with pytest.raises(QueueFull):
        add(queue, 5, 1)
    queue.leave("i")
    queue.again(first, 10)
    queue.again(second, 10)
    queue.join("j")
    assert queue.take("j", 10) == ([first, second], [])
    assert queue.take("j", 10) == (others, [])


def test_who_runs_again_still_hears_at_its_time_and_once() -> None:
    queue = scheduler()
    request = submit(queue, 0, 100)
    queue.take("i", 0)
    queue.again(request, 50)
    assert [due for due, _ in queue.expired(100)] == [request]
    assert queue.batcher.requests == 0
    assert list(queue.expired(200)) == []


# ── the objective ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_controller_decides_holds_at_once() -> None:
    queue = scheduler(slo_p99_us=20 * MS)
    decision, now_us = None, 0.0
    while decision is None and now_us < 2e6:
        add(queue, now_us, 5)
        while queue.batcher.requests:
            rows = len(queue.take("i", now_us)[0])
            now_us += 2 * rows * MS
            decision = queue.finished("i", [2 * rows * MS] * rows, now_us) or decision
    assert decision is not None
    assert queue.slo is not None
    assert queue.slo.decision is decision
    assert (queue.batcher.rows_cap, queue.batcher.delay_us) == (
        decision.rows_cap,
        decision.delay_us,
    )


def test_the_batches_become_as_small_as_the_objective_needs() -> None:
    queue, now_us = taught({1: 3 * MS, 2: 4 * MS, 4: 8 * MS, 8: 16 * MS}, slo_p99_us=21 * MS)
    now_us = teach(queue, {8: 16 * MS}, now_us, times=60)
    cap = queue.batcher.rows_cap
    # a request may have to wait for one batch and run in the next
    assert 4 <= cap <= 5
    add(queue, now_us, 8)
    assert len(queue.take("i", now_us + 1e6)[0]) == cap


def test_without_an_objective_nothing_is_decided() -> None:
    queue, now_us = taught({8: 16 * MS})
    teach(queue, {8: 16 * MS}, now_us, times=100)
    assert queue.slo is None
    assert (queue.batcher.rows_cap, queue.batcher.delay_us) == (8, 0)
