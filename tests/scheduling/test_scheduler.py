"""Who is taken, who is refused, and what they are told: on arrival, when a batch is formed, and at the deadline."""

from __future__ import annotations

from math import inf

import pytest

from penstock.errors import DeadlineExceeded, QueueFull, Unavailable
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.refusals import Refusal
from penstock.scheduling.scheduler import Scheduler, SchedulingPolicy
from simulation import Job, Simulation, Stream
from taught import MS, scheduler, submit, taught

ON_TIME = "Request timeout expired for model 'm'"


def use_up_the_probe(of: Scheduler[Job], now_us: float) -> None:
    """The one request that is tried though it seems to be hopeless."""
    submit(of, now_us, 1)
    assert len(list(of.expired(now_us + 1))) == 1


# ── before anything is known ────────────────────────────────────────────────────────────────────────────────────────


def test_before_anything_is_learnt_nobody_is_refused() -> None:
    queue = scheduler(max_queue_us=1)
    waiting = [submit(queue, 0, 1) for _ in range(24)]
    assert [queue.take("i", 0) for _ in range(3)] == [
        (waiting[:8], []),
        (waiting[8:16], []),
        (waiting[16:], []),
    ]
    assert not any(queue.refused.values())


def test_whose_time_is_over_on_arrival_is_refused_all_the_same() -> None:
    queue = scheduler()
    with pytest.raises(DeadlineExceeded, match=ON_TIME):
        submit(queue, 100, -1)
    assert queue.refused[Refusal.TOO_LATE] == 1
    assert queue.next_expiry_us is None


# ── on arrival ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("is_clients", "error"), [(True, DeadlineExceeded), (False, Unavailable)])
def test_who_cannot_be_on_time_hears_it_on_arrival(
    is_clients: bool, error: type[Unavailable]
) -> None:
    queue, now_us = taught({1: 10 * MS})
    use_up_the_probe(queue, now_us)
    with pytest.raises(Unavailable, match=ON_TIME) as refused:
        submit(queue, now_us, 9 * MS, deadline_is_clients=is_clients)
    assert type(refused.value) is error
    assert "the answer would take 10 ms, and 9 ms are left" in str(refused.value)
    assert queue.refused[Refusal.TOO_LATE] == 1
    assert queue.batcher.requests == 0
    assert queue.next_expiry_us is None


def test_who_would_be_late_alone_is_not_told_to_come_again() -> None:
    queue, now_us = taught({1: 10 * MS})
    use_up_the_probe(queue, now_us)
    with pytest.raises(DeadlineExceeded) as refused:
        submit(queue, now_us, 9 * MS)
    assert refused.value.retry_after_s is None


def test_earlier_deadlines_wait_only_for_what_runs() -> None:
    queue, now_us = taught({1: 10 * MS}, max_rows=1)
    for _ in range(10):
        submit(queue, now_us, 1000 * MS)
    queue.take("i", now_us)
    submit(queue, now_us, 25 * MS)
    with pytest.raises(DeadlineExceeded):
        submit(queue, now_us, 26 * MS)


def test_who_comes_again_when_told_to_is_in_time() -> None:
    queue, now_us = taught({1: 10 * MS}, max_rows=1)
    submit(queue, now_us, inf)
    queue.take("i", now_us)
    with pytest.raises(DeadlineExceeded) as refused:
        submit(queue, now_us, 15 * MS)
    assert refused.value.retry_after_s is not None
    submit(queue, now_us + refused.value.retry_after_s * 1e6, 15 * MS)


def test_without_a_deadline_nobody_is_too_late() -> None:
    queue, now_us = taught({1: 10 * MS}, max_rows=1)
    for _ in range(1000):
        submit(queue, now_us, inf)
    assert queue.next_expiry_us is None


# ── a queue that is full ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_queue_says_when_it_will_be_empty() -> None:
    queue, now_us = taught({8: 20 * MS}, max_queue_requests=16)
    for _ in range(16):
        submit(queue, now_us, inf)
    with pytest.raises(QueueFull) as refused:
        submit(queue, now_us, inf)
    assert refused.value.retry_after_s == pytest.approx(0.04)
    assert queue.drain_s() == refused.value.retry_after_s
    assert queue.refused[Refusal.QUEUE_FULL] == 1


def test_a_full_queue_of_an_unknown_model_cannot_say() -> None:
    queue = scheduler(max_queue_requests=1)
    submit(queue, 0, inf)
    with pytest.raises(QueueFull) as refused:
        submit(queue, 0, inf)
    assert refused.value.retry_after_s is None


def test_what_is_too_long_is_the_wait_and_not_the_queue() -> None:
    fast, fast_us = taught({8: 0.1 * MS}, max_queue_us=50 * MS)
    for _ in range(3000):
        submit(fast, fast_us, inf)
    slow, slow_us = taught({8: 40 * MS}, max_queue_us=50 * MS)
    for _ in range(11):
        submit(slow, slow_us, inf)
    slow.take("i", slow_us)
    for _ in range(8):
        submit(slow, slow_us, inf)
    with pytest.raises(
        QueueFull, match="has work for 80 ms waiting, 50 ms is the bound"
    ) as refused:
        submit(slow, slow_us, inf)
    assert slow.batcher.requests < 20
    assert refused.value.retry_after_s == pytest.approx(0.03)
    assert slow.refused[Refusal.QUEUE_TIME] == 1


# ── when a batch is formed ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("is_clients", "error"), [(True, DeadlineExceeded), (False, Unavailable)])
def test_who_has_become_late_is_dropped_and_the_others_run(
    is_clients: bool, error: type[Unavailable]
) -> None:
    queue, now_us = taught({1: 10 * MS})
    doomed = submit(queue, now_us, 12 * MS, deadline_is_clients=is_clients)
    other = submit(queue, now_us, inf)
    batch, late = queue.take("i", now_us + 3 * MS)
    assert batch == [other]
    ((request, refusal),) = late
    assert (request, type(refusal)) == (doomed, error)
    assert str(refusal) == f"{ON_TIME}: it could not be run in time"
    assert queue.refused[Refusal.TOO_LATE] == 1
    assert queue.batcher.requests == 0


def test_for_a_busy_instance_what_it_still_has_to_do_counts() -> None:
    queue, now_us = taught({8: 10 * MS})
    submit(queue, now_us, inf, rows=8)
    queue.take("i", now_us)
    behind = submit(queue, now_us, 29.5 * MS, rows=8)
    overtakes = submit(queue, now_us, 29 * MS, rows=8)
    assert queue.take("i", now_us + 9 * MS) == ([overtakes], [])
    queue.finished("i", [], now_us + 10 * MS)
    # ten would be left for it now, but one passes until it begins
    batch, late = queue.take("i", now_us + 19 * MS)
    assert (batch, [request for request, _ in late]) == ([], [behind])


# ── at the deadline ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_at_its_time_each_hears_it_whether_it_waits_or_runs() -> None:
    queue = scheduler(max_rows=1)
    runs = submit(queue, 0, 10 * MS)
    queue.take("i", 0)
    waits = submit(queue, 0, 20 * MS, deadline_is_clients=False)
    answered = submit(queue, 0, 5 * MS)
    answered.done = True
    queue.answered(answered, in_time=True)
    assert queue.next_expiry_us is not None
    assert list(queue.expired(9.9 * MS)) == []
    ((request, error),) = queue.expired(10 * MS)
    assert (request, type(error), str(error)) == (runs, DeadlineExceeded, ON_TIME)
    assert queue.next_expiry_us == 20 * MS
    ((request, error),) = queue.expired(30 * MS)
    assert (request, type(error), str(error)) == (waits, Unavailable, ON_TIME)
    assert waits.number == 0
    assert queue.refused[Refusal.EXPIRED] == 2
    assert queue.next_expiry_us is None


def test_who_has_left_is_gone_from_the_queue() -> None:
    queue = scheduler()
    request = submit(queue, 0, inf)
    assert queue.withdraw(request)
    assert not queue.withdraw(request)
    assert queue.take("i", 0) == ([], [])


# ── a model that was slow ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("slow_us", "within_s"), [(100 * MS, 5), (1000 * MS, 12)])
def test_a_model_that_got_fast_again_is_found_out(slow_us: float, within_s: float) -> None:
    takes_us = 1 * MS
    policy = SchedulingPolicy(BatchPolicy(max_rows=8, merge=True))
    clients = Stream(rate=100, timeout_us=50 * MS)
    simulated = Simulation(policy, lambda rows, now_us: takes_us, [clients])
    simulated.run(5)
    takes_us = slow_us
    simulated.run(60)
    before = len(simulated.batches)
    simulated.run(60)
    # it is tried, but not kept busy for answers that nobody waits for
    assert 0.05 < (len(simulated.batches) - before) * slow_us / 60e6 < 0.13
    takes_us = 1 * MS
    simulated.run(within_s)
    before = len(simulated.jobs)
    simulated.run(5)
    answered = [job.good for job in simulated.jobs[before:]]
    assert sum(answered) >= 0.99 * len(answered) > 400


def test_one_hopeless_request_is_tried_with_those_beside_it() -> None:
    queue, now_us = taught({1: 100 * MS})
    tried = submit(queue, now_us, 50 * MS)
    with pytest.raises(DeadlineExceeded):
        submit(queue, now_us, 50 * MS)
    assert queue.take("i", now_us) == ([tried], [])


def test_who_would_have_to_wait_is_no_probe() -> None:
    queue, now_us = taught({1: 100 * MS})
    submit(queue, now_us, inf)
    queue.take("i", now_us)
    with pytest.raises(DeadlineExceeded):
        submit(queue, now_us, 50 * MS)


def test_a_quick_probe_is_soon_followed_by_another() -> None:
    queue, now_us = taught({1: 100 * MS})
    submit(queue, now_us, 50 * MS)
    queue.take("i", now_us)
    queue.finished("i", [1 * MS], now_us + 1 * MS)
    with pytest.raises(DeadlineExceeded):
        submit(queue, now_us + 99 * MS, 50 * MS)
    submit(queue, now_us + 100 * MS, 50 * MS)


def test_a_slow_probe_is_not() -> None:
    queue, now_us = taught({1: 100 * MS})
    submit(queue, now_us, 50 * MS)
    queue.take("i", now_us)
    queue.finished("i", [], now_us + 100 * MS)
    with pytest.raises(DeadlineExceeded):
        submit(queue, now_us + 999 * MS, 50 * MS)
    submit(queue, now_us + 1000 * MS, 50 * MS)
