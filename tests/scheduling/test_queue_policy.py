"""Queue policies by level, in simulated time: how many wait, for how long, and what becomes of the late."""

from __future__ import annotations

import pytest

from penstock.errors import DeadlineExceeded, QueueFull, Unavailable
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.queue_policy import SLACK, QueuePolicies, QueuePolicy
from penstock.scheduling.refusals import Refusal
from penstock.scheduling.scheduler import Scheduler, SchedulingPolicy
from simulation import Job, Simulation, Stream
from taught import MS, scheduler, submit, taught

pytestmark = pytest.mark.extension("schedule_policy")

TEXT = "Request timeout expired for model 'm'"
REJECT = QueuePolicy(timeout_us=100)
DELAY = QueuePolicy(timeout_us=100, delays=True)


def queue(
    default: QueuePolicy, levels: dict[float, QueuePolicy] | None = None, max_rows: int = 1
) -> Scheduler[Job]:
    """A scheduler of the instance "i" with these policies."""
    return scheduler(levels=QueuePolicies(default, levels or {}), max_rows=max_rows)


def add(to: Scheduler[Job], now_us: float, **fields: object) -> Job:
    """Queue a request that comes now."""
    job = Job(now_us, **fields)  # type: ignore[arg-type]
    to.submit(job, now_us)
    return job


def taken(of: Scheduler[Job], now_us: float) -> list[Job]:
    """The next batch; nothing is refused meanwhile."""
    batch, late = of.take("i", now_us)
    assert late == []
    return batch


# ── REJECT ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_waits_for_too_long_hears_it_then() -> None:
    waits = queue(REJECT)
    first, second = add(waits, 0), add(waits, 60)
    assert waits.next_expiry_us == 100
    assert list(waits.expired(99)) == []
    ((late, error),) = waits.expired(100)
    assert late is first
    assert type(error) is Unavailable
    assert str(error).startswith(TEXT)
    assert waits.next_expiry_us == 160
    assert waits.refused[Refusal.QUEUE_TIMEOUT] == 1
    assert (waits.batcher.requests, waits.batcher.rows, waits.batcher.nbytes) == (1, 1, 10)
    assert taken(waits, 100) == [second]


def test_what_began_in_time_may_run_for_as_long_as_it_likes() -> None:
    waits = queue(REJECT)
    job = add(waits, 0)
    assert taken(waits, 50) == [job]
    assert list(waits.expired(500)) == []
    assert waits.next_expiry_us is None


def test_a_batch_that_is_formed_later_holds_none_whose_time_is_over() -> None:
    """Though nobody was told yet that it is."""
    waits = queue(REJECT, max_rows=8)
    first, second = add(waits, 0), add(waits, 60)
    batch, late = waits.take("i", 130)
    assert batch == [second]
    ((over, error),) = late
    assert over is first
    assert str(error).startswith(TEXT)


def test_what_has_to_run_once_more_has_waited_enough() -> None:
    waits = queue(REJECT)
    job = add(waits, 0)
    assert taken(waits, 50) == [job]
    waits.again(job, 60)
    assert list(waits.expired(500)) == []
    assert taken(waits, 500) == [job]


def test_levels_have_their_own_times() -> None:
    waits = queue(REJECT, {2: QueuePolicy(timeout_us=50), 3: QueuePolicy()})
    jobs = [add(waits, 0, priority=level) for level in (1, 2, 3)]
    assert [job for job, _ in waits.expired(60)] == [jobs[1]]
    assert [job for job, _ in waits.expired(10_000)] == [jobs[0]]
    assert taken(waits, 10_000) == [jobs[2]]


def test_a_cancelled_request_is_not_refused_again() -> None:
    waits = queue(REJECT)
    job = add(waits, 0)
    assert waits.withdraw(job)
    assert list(waits.expired(200)) == []
    assert waits.refused[Refusal.QUEUE_TIMEOUT] == 0


def test_the_clients_deadline_holds_beside() -> None:
    waits = queue(QueuePolicy(timeout_us=1000))
    job = add(waits, 0, deadline_us=200)
    assert waits.next_expiry_us == 200
    ((late, error),) = waits.expired(200)
    assert late is job
    assert type(error) is DeadlineExceeded
    # and it is not refused a second time
    job.done = True
    assert list(waits.expired(2000)) == []


def test_a_wait_that_is_over_says_nothing_of_deadlines() -> None:
    """Nobody was promised a turn: admission gets no more careful."""
    waits, now_us = taught({1: 10 * MS}, max_rows=1, levels=QueuePolicies(REJECT))
    for _ in range(50):
        submit(waits, now_us, 10_000 * MS)
    assert len(list(waits.expired(now_us + 200))) == 50
    # as in the test of admission without policies: 10 ms of work, and a tenth on top
    submit(waits, now_us + 200, 10.1 * MS)


# ── DELAY ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_late_run_after_all_of_their_level_that_are_on_time() -> None:
    waits = queue(DELAY)
    late = [add(waits, 0), add(waits, 10)]
    low = add(waits, 20, priority=2)
    fresh = [add(waits, 105), add(waits, 106)]
    assert list(waits.expired(110)) == []
    assert waits.batcher.delayed == 2
    order = [taken(waits, 110)[0] for _ in range(5)]
    assert order == [*fresh, *late, low]
    assert not any(waits.refused.values())


def test_the_late_are_not_late_twice() -> None:
    waits = queue(DELAY)
    job = add(waits, 0)
    assert list(waits.expired(100)) == []
    assert waits.next_expiry_us is None
    assert list(waits.expired(900)) == []
    assert waits.batcher.delayed == 1
    assert taken(waits, 900) == [job]


def test_the_late_ride_where_there_is_room() -> None:
    waits = queue(DELAY, max_rows=8)
    late = add(waits, 0, rows=3)
    fresh = add(waits, 90, rows=4)
    assert taken(waits, 120) == [fresh, late]


def test_the_late_hear_of_their_clients_deadline() -> None:
    waits = queue(DELAY)
    job = add(waits, 0, deadline_us=300)
    assert list(waits.expired(100)) == []
    assert waits.next_expiry_us == 300
    ((over, error),) = waits.expired(300)
    assert (over, type(error)) == (job, DeadlineExceeded)
    assert waits.batcher.requests == 0


def test_the_late_that_leave_are_out_of_the_books() -> None:
    waits = queue(DELAY)
    job = add(waits, 0)
    assert list(waits.expired(100)) == []
    assert waits.withdraw(job)
    assert (waits.batcher.requests, waits.batcher.rows, waits.batcher.nbytes) == (0, 0, 0)
    assert taken(waits, 100) == []


def test_clients_may_say_when_they_are_late() -> None:
    waits = queue(DELAY)
    early, default = add(waits, 0, queue_timeout_us=20), add(waits, 1)
    assert waits.next_expiry_us == 20
    assert list(waits.expired(30)) == []
    assert [taken(waits, 40)[0] for _ in range(2)] == [default, early]


def test_the_late_are_not_left_for_ever() -> None:
    """Twice the load that the model can take: those on time have it nearly for themselves, but not quite."""
    policy = SchedulingPolicy(
        BatchPolicy(
            levels=QueuePolicies(QueuePolicy(timeout_us=50 * MS, delays=True)),
            max_queue_requests=100_000,
        )
    )
    simulation = Simulation(policy, lambda rows, now_us: 5 * MS, [Stream(rate=400)])
    simulation.run(10)
    answered = [job for job in simulation.jobs if job.ended_us is not None]
    late = [job for job in answered if job.priority % 1]
    on_time = [job for job in answered if not job.priority % 1]
    assert not any(job.error for job in simulation.jobs)
    assert all(job.latency_us <= 60 * MS for job in on_time)
    assert late
    assert len(late) < 0.2 * len(answered)


# ── how many ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_level_has_its_own_room() -> None:
    waits = queue(QueuePolicy(max_requests=2), {2: QueuePolicy(max_requests=1)})
    for level in (1, 1, 2, 3, 3):
        add(waits, 0, priority=level)
    for level, count in ((1, 2), (2, 1), (3, 2)):
        text = f"Exceeds maximum queue size: level {level} of model 'm' has {count} requests"
        with pytest.raises(QueueFull, match=text):
            add(waits, 0, priority=level)
    assert waits.refused[Refusal.QUEUE_FULL] == 3
    # what was refused is in no book
    assert (waits.batcher.requests, waits.batcher.rows, waits.batcher.nbytes) == (5, 5, 50)


def test_the_late_take_room_too() -> None:
    waits = queue(QueuePolicy(timeout_us=100, delays=True, max_requests=2))
    for _ in range(2):
        add(waits, 0)
    assert list(waits.expired(100)) == []
    with pytest.raises(QueueFull, match="level 1 of model 'm' has 2 requests"):
        add(waits, 100)
    taken(waits, 100)
    add(waits, 100)


def test_who_fills_a_level_does_not_lock_others_out() -> None:
    waits = queue(QueuePolicy(max_requests=16))
    for _ in range(16):
        add(waits, 0, tenant="greedy")
    with pytest.raises(QueueFull):
        add(waits, 0, tenant="greedy")
    for _ in range(2):
        add(waits, 0, tenant="polite")
    with pytest.raises(QueueFull):
        add(waits, 0, tenant="polite")


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_has_run_is_not_kept_until_its_time_would_be_over() -> None:
    waits = queue(QueuePolicy(timeout_us=1e12))
    for number in range(10 * SLACK):
        add(waits, number)
        taken(waits, number)
        waits.finished("i", [], number)
    assert waits.batcher.times is not None
    assert len(waits.batcher.times._heap) <= SLACK + 2
