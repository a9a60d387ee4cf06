"""The batcher's rules one by one, in simulated time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.errors import QueueFull
from penstock.scheduling.batcher import Batcher, BatchPolicy
from simulation import Job


def batcher(*jobs: Job, usual: Callable[[int], float] | None = None, **policy: Any) -> Batcher[Job]:
    """A merging batcher of 8 rows that holds these already, since they arrived."""
    joined = BatchPolicy(**{"max_rows": 8, "merge": True, **policy})
    made = Batcher[Job]("m", joined) if usual is None else Batcher[Job]("m", joined, usual=usual)
    for job in jobs:
        made.add(job, job.arrived_us)
    return made


def test_without_a_delay_what_is_there_goes_at_once() -> None:
    first, second = Job(rows=2), Job(rows=3)
    queue = batcher(first, second)
    assert queue.next_due_us() == 0
    assert queue.take(0) == ([first, second], [])
    assert queue.take(0) == ([], [])
    assert queue.next_due_us() is None


def test_shapes_never_mix_and_the_oldest_head_goes_first() -> None:
    b, a, a2 = Job(1, shape_key="b"), Job(2, shape_key="a"), Job(3, shape_key="a")
    queue = batcher(b, a, a2)
    assert queue.take(9)[0] == [b]
    assert queue.take(9)[0] == [a, a2]


def test_a_batch_is_cut_between_requests_and_never_within_one() -> None:
    jobs = [Job(rows=3) for _ in range(4)]
    queue = batcher(*jobs)
    assert [queue.take(0)[0] for _ in range(2)] == [jobs[:2], jobs[2:]]


def test_a_request_over_a_bound_goes_alone() -> None:
    many_rows, many_bytes, small = Job(rows=20), Job(nbytes=999), Job()
    queue = batcher(many_rows, many_bytes, small, max_batch_bytes=100)
    assert [queue.take(0)[0] for _ in range(3)] == [[many_rows], [many_bytes], [small]]


def test_a_batch_stays_within_its_bytes() -> None:
    jobs = [Job(nbytes=40) for _ in range(3)]
    assert batcher(*jobs, max_batch_bytes=100).take(0)[0] == jobs[:2]


def test_without_merging_each_goes_alone_whatever_the_delay() -> None:
    jobs = [Job() for _ in range(3)]
    queue = batcher(*jobs, merge=False, max_delay_us=1000)
    assert [queue.take(0, only_full=True)[0] for _ in range(3)] == [[job] for job in jobs]


def test_the_delay_is_kept_to_the_microsecond() -> None:
    job = Job(1000)
    queue = batcher(job, max_delay_us=500)
    assert queue.next_due_us() == 1500
    assert queue.take(1499) == ([], [])
    assert queue.take(1500) == ([job], [])


def test_the_delay_is_the_oldest_ones_of_what_a_batch_has_left() -> None:
    jobs = [Job(0, rows=5), Job(100, rows=4), Job(300)]
    queue = batcher(*jobs, max_delay_us=500)
    assert queue.take(300)[0] == jobs[:1]
    assert queue.next_due_us() == 600


def test_company_is_not_awaited_beyond_what_a_deadline_leaves() -> None:
    job = Job(deadline_us=400)
    queue = batcher(job, max_delay_us=500, usual=lambda rows: 100.0 * rows)
    assert queue.next_due_us() == 200
    assert queue.take(199)[0] == []
    assert queue.take(200)[0] == [job]


def test_a_full_batch_does_not_wait() -> None:
    jobs = [Job(rows=4), Job(rows=4), Job()]
    queue = batcher(*jobs, max_delay_us=500)
    assert queue.take(0)[0] == jobs[:2]
    assert queue.take(0)[0] == []


def test_a_full_shape_goes_while_an_older_one_still_waits() -> None:
    old, full = Job(0, shape_key="a"), Job(5, 8, shape_key="b")
    queue = batcher(old, full, max_delay_us=500)
    assert [queue.take(now_us)[0] for now_us in (10, 10, 500)] == [[full], [], [old]]


def test_of_full_shapes_the_one_that_waits_longest_goes() -> None:
    jobs = [Job(0, 8, "a"), Job(1, 1, "c"), Job(2, 8, "b"), Job(3, 8, "a")]
    queue = batcher(*jobs, max_delay_us=500)
    assert [queue.take(4)[0] for _ in range(3)] == [[jobs[0]], [jobs[2]], [jobs[3]]]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [((2, 2), 2), ((2, 2, 1), 2), ((1, 2), 0), ((3, 3), 2), ((5,), 0), ((4,), 1), ((2,), 1)],
)
def test_preferred_sizes_go_at_once_when_met_exactly(rows: tuple[int, ...], expected: int) -> None:
    jobs = [Job(rows=each) for each in rows]
    queue = batcher(*jobs, preferred_rows=(2, 4, 6), max_delay_us=500)
    assert queue.take(0)[0] == jobs[:expected]


def test_only_full_takes_nothing_that_could_grow() -> None:
    small, rest = Job(rows=7), Job(1)
    queue = batcher(small)
    assert queue.take(0, only_full=True)[0] == []
    queue.add(rest, 1)
    assert queue.take(1, only_full=True)[0] == [small, rest]


def test_a_rare_shape_does_not_starve_behind_a_busy_one() -> None:
    rare = Job(shape_key="rare")
    queue = batcher(rare, *(Job(now_us, 8, "busy") for now_us in range(1, 4)))
    assert queue.take(10, only_full=True)[0] == [rare]
    assert len(queue.take(10, only_full=True)[0]) == 1


def test_the_more_urgent_level_goes_first_and_the_other_one_fills_its_batch() -> None:
    low, high = Job(0, 4, priority=2), Job(1, 4, priority=1)
    other = Job(0, 8, "b", priority=2)
    queue = batcher(other, low, high)
    assert [queue.take(2)[0] for _ in range(2)] == [[high, low], [other]]


def test_the_earliest_deadline_goes_first_and_what_cannot_be_on_time_not_at_all() -> None:
    none, late, tight = Job(), Job(deadline_us=99), Job(deadline_us=100)
    queue = batcher(none, tight, late)
    assert queue.take(0, lambda rows: 50.0 + 50 * rows) == ([tight], [late])
    assert queue.take(0, lambda rows: 50.0 + 50 * rows) == ([none], [])


def test_what_is_late_neither_leads_a_batch_nor_fills_one() -> None:
    late, mate = Job(rows=4, deadline_us=10), Job(rows=4, priority=2)
    urgent = Job(shape_key="b")
    queue = batcher(late, mate, urgent)
    assert queue.take(0, lambda rows: 5.0 * rows) == ([urgent], [late])
    queue = batcher(Job(rows=4, deadline_us=10), mate)
    batch, late_ones = queue.take(0, lambda rows: 5.0 * rows, only_full=True)
    assert (batch, len(late_ones)) == ([], 1)


def test_a_batch_is_no_longer_than_its_tightest_deadline_allows() -> None:
    jobs = [Job(rows=2, deadline_us=30), Job(), Job(rows=2)]
    queue = batcher(*jobs)
    assert queue.take(0, lambda rows: 10.0 * rows)[0] == jobs[:2]


def test_what_comes_again_goes_before_what_has_only_come() -> None:
    jobs = [Job(at) for at in range(4)]
    queue = batcher(*jobs[:2], max_rows=2)
    batch, _ = queue.take(2)
    for job in (jobs[2], *batch, jobs[3]):
        queue.add(job, 3, again=job in batch)
    assert [queue.take(4)[0] for _ in range(2)] == [jobs[:2], jobs[2:]]


def test_the_queue_is_bounded_in_requests_and_in_bytes() -> None:
    queue = batcher(Job(), Job(), max_queue_requests=2)
    with pytest.raises(QueueFull, match=r"Exceeds maximum queue size: model 'm' has 2 requests"):
        queue.check_room(Job())
    queue = batcher(Job(nbytes=60), max_queue_bytes=100)
    with pytest.raises(QueueFull, match=r"60 bytes waiting, 41 more are over the bound of 100"):
        queue.check_room(Job(nbytes=41))
    queue.check_room(Job(nbytes=40))


def test_who_fills_the_queue_does_not_lock_others_out() -> None:
    queue = batcher(*(Job(nbytes=1, tenant="greedy") for _ in range(16)), max_queue_requests=16)
    for _ in range(2):
        polite = Job(tenant="polite")
        queue.check_room(polite)
        queue.add(polite, 0)
        with pytest.raises(QueueFull):
            queue.check_room(Job(tenant="greedy"))
    with pytest.raises(QueueFull):
        queue.check_room(Job(tenant="polite"))


def test_cancelling_what_does_not_wait_does_nothing() -> None:
    job = Job()
    queue = batcher(job)
    assert not queue.cancel(Job())
    assert queue.take(0)[0] == [job]
    assert not queue.cancel(job)
    assert (queue.requests, queue.rows, queue.nbytes) == (0, 0, 0)


def test_drain_gives_all_the_most_urgent_level_first() -> None:
    low, a, b = Job(0, priority=2), Job(1, shape_key="a"), Job(2, shape_key="b")
    queue = batcher(low, a, b, max_delay_us=1000)
    assert queue.drain() == [a, b, low]
    assert (queue.requests, queue.rows, queue.nbytes) == (0, 0, 0)
    assert queue.take(9999) == ([], [])
    assert not queue.cancel(a)
    queue.add(a, 5)
    assert queue.take(9999)[0] == [a]


def test_shapes_that_come_and_go_leave_nothing_behind() -> None:
    queue = batcher(Job(shape_key="old"), max_delay_us=10**9)
    for now_us in range(1, 100):
        passing = Job(now_us, shape_key=now_us, tenant=str(now_us))
        queue.add(passing, now_us)
        assert queue.cancel(passing)
    assert len(queue._shapes) == len(queue.levels._levels[1].lanes) == 1
