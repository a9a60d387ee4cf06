"""The batcher in simulated time: first its rules one by one, then all of them against a naive model of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.errors import QueueFull
from penstock.scheduling.batcher import Batcher, BatchPolicy

_names = count()


@dataclass(eq=False)
class Waiting:
    """A request as the batcher sees it."""

    rows: int = 1
    shape_key: Hashable = "a"
    nbytes: int = 10
    tenant: str = "default"
    priority: int = 1
    deadline_us: float = inf
    arrived_ns: int = 0
    number: int = 0
    name: int = field(default_factory=lambda: next(_names))


class Queue:
    """A batcher whose bounds hold, and which takes batches without late ones unless they are asked for."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.batcher: Batcher[Waiting] = Batcher("m", policy)

    def add(self, request: Waiting, now_us: int) -> None:
        """As the scheduler does."""
        self.batcher.check_room(request)
        request.arrived_ns = now_us * 1000
        self.batcher.add(request, now_us)

    def take(self, now_us: int, *, only_full: bool = False) -> list[Waiting]:
        """The batch; nobody is late."""
        batch, late = self.batcher.take(now_us, only_full=only_full)
        assert late == []
        return batch


def batcher(*requests: tuple[int, Waiting], **policy: Any) -> Queue:
    """A merging batcher that holds (arrival, request) already."""
    made = Queue(BatchPolicy(**{"max_rows": 8, "merge": True, **policy}))
    for arrived_us, request in requests:
        made.add(request, arrived_us)
    return made


def test_without_a_delay_what_is_there_goes_at_once() -> None:
    first, second = Waiting(2), Waiting(3)
    queue = batcher((0, first), (0, second))
    assert queue.batcher.next_due_us() == 0
    assert queue.take(0) == [first, second]
    assert queue.take(0) == []
    assert queue.batcher.next_due_us() is None


def test_shapes_never_mix_and_the_oldest_head_goes_first() -> None:
    a, b, a2 = Waiting(shape_key="a"), Waiting(shape_key="b"), Waiting(shape_key="a")
    queue = batcher((1, b), (2, a), (3, a2))
    assert queue.take(9) == [b]
    assert queue.take(9) == [a, a2]


def test_a_batch_is_cut_between_requests_and_never_within_one() -> None:
    requests = [Waiting(3) for _ in range(4)]
    queue = batcher(*((0, request) for request in requests))
    assert queue.take(0) == requests[:2]
    assert queue.take(0) == requests[2:]


def test_a_request_over_a_bound_goes_alone() -> None:
    many_rows, many_bytes, small = Waiting(20), Waiting(1, nbytes=999), Waiting()
    queue = batcher((0, many_rows), (0, many_bytes), (0, small), max_batch_bytes=100)
    assert [queue.take(0) for _ in range(3)] == [[many_rows], [many_bytes], [small]]


def test_a_batch_stays_within_its_bytes() -> None:
    requests = [Waiting(nbytes=40) for _ in range(3)]
    queue = batcher(*((0, request) for request in requests), max_batch_bytes=100)
    assert queue.take(0) == requests[:2]


def test_without_merging_each_goes_alone_whatever_the_delay() -> None:
    requests = [Waiting() for _ in range(3)]
    queue = batcher(*((0, r) for r in requests), merge=False, max_delay_us=1000)
    assert [queue.take(0, only_full=True) for _ in range(3)] == [[r] for r in requests]


def test_the_delay_is_kept_to_the_microsecond() -> None:
    request = Waiting()
    queue = batcher((1000, request), max_delay_us=500)
    assert queue.batcher.next_due_us() == 1500
    assert queue.take(1499) == []
    assert queue.take(1500) == [request]


def test_the_delay_is_the_oldest_ones_though_it_be_cancelled() -> None:
    old, young = Waiting(), Waiting()
    queue = batcher((0, old), (300, young), max_delay_us=500)
    assert queue.batcher.next_due_us() == 500
    assert queue.batcher.cancel(old)
    assert queue.batcher.next_due_us() == 500
    assert queue.take(499) == []
    assert queue.take(500) == [young]


def test_what_is_left_of_a_batch_waits_for_its_own_delay() -> None:
    full, rest = Waiting(8), Waiting(1)
    queue = batcher((0, full), (300, rest), max_delay_us=500)
    assert queue.take(300) == [full]
    assert queue.batcher.next_due_us() == 800


def test_a_full_batch_does_not_wait() -> None:
    requests = [Waiting(4), Waiting(4), Waiting(1)]
    queue = batcher(*((0, request) for request in requests), max_delay_us=500)
    assert queue.take(0) == requests[:2]
    assert queue.take(0) == []


def test_a_full_bucket_goes_while_an_older_one_still_waits() -> None:
    old, full = Waiting(1, "a"), Waiting(8, "b")
    queue = batcher((0, old), (5, full), max_delay_us=500)
    assert queue.take(10) == [full]
    assert queue.take(10) == []
    assert queue.take(500) == [old]


def test_of_full_shapes_the_one_whose_first_request_came_first_goes() -> None:
    a, b, waits = Waiting(8, "a"), Waiting(8, "b"), Waiting(1, "c")
    first_a = Waiting(8, "a")
    queue = batcher((0, first_a), (1, waits), (2, b), (3, a), max_delay_us=500)
    assert queue.take(4) == [first_a]
    assert queue.take(4) == [b]
    assert queue.take(4) == [a]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [((2, 2), 2), ((2, 2, 1), 2), ((1, 2), 0), ((3, 3), 2), ((5,), 0), ((4,), 1), ((2,), 1)],
)
def test_preferred_sizes_go_at_once_when_met_exactly(rows: tuple[int, ...], expected: int) -> None:
    requests = [Waiting(n) for n in rows]
    queue = batcher(*((0, r) for r in requests), preferred_rows=(2, 4, 6), max_delay_us=500)
    assert queue.take(0) == requests[:expected]


def test_only_full_takes_nothing_that_could_grow() -> None:
    small, full = Waiting(7), Waiting(1)
    queue = batcher((0, small))
    assert queue.take(0, only_full=True) == []
    queue.add(full, 1)
    assert queue.take(1, only_full=True) == [small, full]


def test_a_rare_shape_does_not_starve_behind_a_busy_one() -> None:
    rare = Waiting(1, "rare")
    queue = batcher((0, rare))
    for now_us in range(1, 4):
        queue.add(Waiting(8, "busy"), now_us)
    assert queue.take(10, only_full=True) == [rare]
    assert len(queue.take(10, only_full=True)) == 1


def test_the_queue_is_bounded_in_requests_and_in_bytes() -> None:
    queue = batcher((0, Waiting()), (0, Waiting()), max_queue_requests=2)
    with pytest.raises(QueueFull, match=r"Exceeds maximum queue size: model 'm' has 2 requests"):
        queue.add(Waiting(), 0)
    queue = batcher((0, Waiting(nbytes=60)), max_queue_bytes=100)
    with pytest.raises(QueueFull, match=r"60 bytes waiting, 41 more are over the bound of 100"):
        queue.add(Waiting(nbytes=41), 0)
    queue.add(Waiting(nbytes=40), 0)
    assert (queue.batcher.requests, queue.batcher.nbytes) == (2, 100)
    assert len(queue.take(0)) == 2
    assert (queue.batcher.requests, queue.batcher.nbytes) == (0, 0)


def test_cancelling_what_does_not_wait_does_nothing() -> None:
    request = Waiting()
    queue = batcher((0, request))
    assert not queue.batcher.cancel(Waiting())
    assert not queue.batcher.cancel(Waiting(shape_key="other"))
    assert queue.take(0) == [request]
    assert not queue.batcher.cancel(request)
    assert queue.batcher.requests == 0


def test_drain_gives_all_oldest_first() -> None:
    a, b, a2 = Waiting(shape_key="a"), Waiting(shape_key="b"), Waiting(shape_key="a")
    queue = batcher((0, a), (1, b), (2, a2), max_delay_us=1000)
    assert queue.batcher.drain() == [a, b, a2]
    assert (queue.batcher.requests, queue.batcher.nbytes, queue.take(9999)) == (0, 0, [])
    queue.add(a, 5)
    assert queue.take(9999) == [a]


def test_what_comes_again_goes_first_and_no_bound_refuses_it() -> None:
    first, second, new = Waiting(), Waiting(), Waiting()
    queue = batcher((0, new), max_queue_requests=1, max_rows=1)
    queue.batcher.add(first, 5, again=True)
    queue.batcher.add(second, 5, again=True)
    assert [queue.take(5) for _ in range(3)] == [[first], [second], [new]]


def test_a_tenant_that_has_little_finds_room_where_another_has_filled_the_queue() -> None:
    queue = batcher(*((0, Waiting(tenant="greedy")) for _ in range(16)), max_queue_requests=16)
    with pytest.raises(QueueFull):
        queue.add(Waiting(tenant="greedy"), 0)
    polite = Waiting(tenant="polite")
    queue.add(polite, 0)
    assert polite in queue.take(0)


# ── priorities and deadlines ────────────────────────────────────────────────────────────────────────────────────────


def test_the_more_urgent_level_goes_first_and_others_fill_its_batch() -> None:
    low, high = Waiting(priority=2), Waiting(priority=1)
    queue = batcher((0, low), (1, high), max_rows=2)
    assert queue.take(2) == [high, low]


def test_no_level_waits_for_ever() -> None:
    low = Waiting(priority=2)
    queue = batcher((0, low), max_rows=1)
    for now_us in range(0, 3_000_000, 100_000):
        queue.add(Waiting(priority=1), now_us)
        if low in queue.take(now_us):
            assert 1_000_000 <= now_us <= 1_100_000
            return
    pytest.fail("it waits for ever")


def test_the_earliest_deadline_goes_first_and_who_has_none_last() -> None:
    patient, late, soon = Waiting(), Waiting(deadline_us=900), Waiting(deadline_us=500)
    queue = batcher((0, patient), (0, late), (0, soon))
    assert queue.take(0) == [soon, late, patient]


def linear(rows: int) -> float:
    """100 µs a row."""
    return 100.0 * rows


def test_a_batch_ends_where_one_more_row_would_make_a_member_late() -> None:
    requests = [Waiting(deadline_us=350), *(Waiting() for _ in range(5))]
    queue = batcher(*((0, request) for request in requests))
    assert queue.batcher.take(0, linear) == (requests[:3], [])
    assert queue.batcher.take(300, linear) == (requests[3:], [])


def test_who_can_not_be_on_time_even_alone_is_left_out_and_told_of() -> None:
    hopeless, good = Waiting(deadline_us=50), Waiting(deadline_us=500)
    queue = batcher((0, hopeless), (0, good))
    assert queue.batcher.take(0, linear) == ([good], [hopeless])
    assert (queue.batcher.requests, queue.batcher.rows, queue.batcher.nbytes) == (0, 0, 0)


def test_waiting_for_company_ends_in_time_for_a_deadline() -> None:
    made: Batcher[Waiting] = Batcher("m", BatchPolicy(8, True, max_delay_us=10_000), usual=linear)
    request = Waiting(deadline_us=1000)
    made.add(request, 0)
    assert made.next_due_us() == 800
    assert made.take(799, linear) == ([], [])
    assert made.take(800, linear) == ([request], [])


class AgainstNaiveModel(RuleBasedStateMachine):
    """The same steps on the batcher and on a plain list; what comes out must be the same."""

    def __init__(self) -> None:
        super().__init__()
        self.now_us = 0
        self.waiting: list[tuple[int, Waiting]] = []
        self.since_us: dict[Hashable, int] = {}

    @initialize(
        policy=st.builds(
            BatchPolicy,
            max_rows=st.integers(1, 8),
            merge=st.sampled_from([True, True, False]),
            preferred_rows=st.sampled_from([(), (2,), (4, 2), (3, 8)]),
            max_delay_us=st.sampled_from([0, 3, 10]),
            max_batch_bytes=st.sampled_from([1 << 30, 30]),
            max_queue_requests=st.sampled_from([4, 100]),
            max_queue_bytes=st.sampled_from([60, 10_000]),
        )
    )
    def start(self, policy: BatchPolicy) -> None:
        self.policy = policy
        self.queue = Queue(policy)
        self.batcher = self.queue.batcher

    @rule(rows=st.integers(1, 9), key=st.sampled_from("abc"), nbytes=st.sampled_from([0, 9, 31]))
    def add(self, rows: int, key: str, nbytes: int) -> None:
        request = Waiting(rows, key, nbytes)
        too_many = len(self.waiting) + 1 > self.policy.max_queue_requests
        held = sum(r.nbytes for _, r in self.waiting)
        if too_many or held + nbytes > self.policy.max_queue_bytes:
            with pytest.raises(QueueFull, match="Exceeds maximum queue size"):
                self.queue.add(request, self.now_us)
        else:
            self.queue.add(request, self.now_us)
            self.waiting.append((self.now_us, request))
            self.since_us.setdefault(key, self.now_us)

    @rule(by_us=st.sampled_from([0, 1, 2, 5, 20]))
    def pass_time(self, by_us: int) -> None:
        self.now_us += by_us

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        assert self.batcher.cancel(entry[1])
        assert not self.batcher.cancel(entry[1])
        self.waiting.remove(entry)
        self._forget_empty_shapes()

    @rule(only_full=st.booleans())
    def take(self, only_full: bool) -> None:
        batch = self.queue.take(self.now_us, only_full=only_full)
        assert batch == self._expected_batch(only_full)
        self._check_rules(batch)
        self.waiting = [entry for entry in self.waiting if entry[1] not in batch]
        if batch:
            key = batch[0].shape_key
            left = [at for at, request in self.waiting if request.shape_key == key]
            self.since_us[key] = min(left, default=0)
        self._forget_empty_shapes()

    @rule()
    def drain(self) -> None:
        drained = self.batcher.drain()
        assert set(drained) == {request for _, request in self.waiting}
        assert drained == [request for _, request in self.waiting]
        self.waiting.clear()
        self._forget_empty_shapes()

    @invariant()
    def nothing_drifts(self) -> None:
        if not hasattr(self, "batcher"):
            return
        assert self.batcher.requests == len(self.waiting)
        assert self.batcher.nbytes == sum(r.nbytes for _, r in self.waiting)
        due = self.batcher.next_due_us()
        since_us = min(self.since_us.values(), default=None)
        assert due == (None if since_us is None else since_us + self.policy.max_delay_us)

    def _forget_empty_shapes(self) -> None:
        keys = {request.shape_key for _, request in self.waiting}
        self.since_us = {key: at for key, at in self.since_us.items() if key in keys}

    def _buckets(self) -> dict[Hashable, list[tuple[int, Waiting]]]:
        buckets: dict[Hashable, list[tuple[int, Waiting]]] = {}
        for entry in self.waiting:
            buckets.setdefault(entry[1].shape_key, []).append(entry)
        return buckets

    def _rows_due(self, bucket: list[tuple[int, Waiting]]) -> int:
        policy = self.policy
        rows = sum(r.rows for _, r in bucket)
        if not policy.merge:
            return 1
        if rows >= policy.max_rows:
            return policy.max_rows
        sums = [sum(r.rows for _, r in bucket[: n + 1]) for n in range(len(bucket))]
        met = [size for size in policy.preferred_rows if size in sums]
        if met:
            return max(met)
        since_us = self.since_us[bucket[0][1].shape_key]
        return rows if self.now_us >= since_us + policy.max_delay_us else 0

    def _cut(self, bucket: list[tuple[int, Waiting]], limit: int) -> list[Waiting]:
        requests = [request for _, request in bucket]
        for size in range(len(requests), 1, -1):
            some = requests[:size]
            if (
                self.policy.merge
                and sum(r.rows for r in some) <= limit
                and sum(r.nbytes for r in some) <= self.policy.max_batch_bytes
            ):
                return some
        return requests[:1]

    def _expected_batch(self, only_full: bool) -> list[Waiting]:
        """Of the shapes that are due, the one whose first request came first."""
        buckets = list(self._buckets().values())
        full = [
            b
            for b in buckets
            if not self.policy.merge or sum(r.rows for _, r in b) >= self.policy.max_rows
        ]
        if only_full and not full:
            return []
        due = [bucket for bucket in buckets if self._rows_due(bucket)]
        return self._cut(due[0], self._rows_due(due[0])) if due else []

    def _check_rules(self, batch: list[Waiting]) -> None:
        """What must be true of any batch, whatever the model above says."""
        if not batch:
            return
        assert len({request.shape_key for request in batch}) == 1
        of_key = [r for _, r in self.waiting if r.shape_key == batch[0].shape_key]
        assert batch == of_key[: len(batch)]
        if len(batch) > 1:
            assert sum(r.rows for r in batch) <= self.policy.max_rows
            assert sum(r.nbytes for r in batch) <= self.policy.max_batch_bytes


TestAgainstNaiveModel = AgainstNaiveModel.TestCase
TestAgainstNaiveModel.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, database=None
)
