"""The batcher against a naive model of it: the same steps on both, with tenants, priorities and deadlines."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.errors import QueueFull
from penstock.scheduling.batcher import Batcher, BatchPolicy
from penstock.scheduling.queue_policy import LATE, QueuePolicies, QueuePolicy
from penstock.scheduling.room import RESERVE
from simulation import Job

LEVELS = st.builds(
    QueuePolicies,
    st.builds(
        QueuePolicy,
        timeout_us=st.sampled_from([0, 4, 12]),
        delays=st.booleans(),
        max_requests=st.sampled_from([0, 3]),
    ),
    st.sampled_from([{}, {2: QueuePolicy(2, delays=True)}, {1: QueuePolicy(7, max_requests=2)}]),
)

POLICIES = st.builds(
    BatchPolicy,
    max_rows=st.integers(1, 8),
    merge=st.sampled_from([True, True, False]),
    preferred_rows=st.sampled_from([(), (2,), (4, 2), (3, 8)]),
    max_delay_us=st.sampled_from([0, 3, 10]),
    max_batch_bytes=st.sampled_from([1 << 30, 30]),
    max_queue_requests=st.sampled_from([4, 100]),
    max_queue_bytes=st.sampled_from([60, 10_000]),
    levels=st.one_of(st.none(), LEVELS),
)


def rows_of(jobs: Iterable[Job]) -> int:
    """All their rows."""
    return sum(job.rows for job in jobs)


def bytes_of(jobs: Iterable[Job]) -> int:
    """All their input bytes."""
    return sum(job.nbytes for job in jobs)


class AgainstNaiveModel(RuleBasedStateMachine):
    """What comes out of it is the naive model's where there is one tenant, and keeps all rules where there are more."""

    @initialize(
        policy=POLICIES,
        tenants=st.sampled_from(["a", "a", "abc"]),
        cost=st.sampled_from([(0.0, 0.0), (2.0, 0.5), (0.0, 3.0)]),
    )
    def start(self, policy: BatchPolicy, tenants: str, cost: tuple[float, float]) -> None:
        self.policy = policy
        self.tenants = tenants
        self.call_us, self.row_us = cost
        self.now_us = 0
        self.waiting: list[tuple[tuple[float, float, int], Job]] = []
        self.since_us: dict[object, float] = {}
        self.taken: list[Job] = []
        self.places = 0
        self.until_us: dict[Job, float] = {}
        """When the waits of those that may not wait for ever are over."""
        self.batcher = Batcher[Job](
            "m", policy, {"a": 1.0, "b": 0.25, "c": 8.0}.__getitem__, self.cost
        )

    def cost(self, rows: int) -> float:
        """Of a batch, in microseconds."""
        return self.call_us + self.row_us * rows

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        rows=st.integers(1, 9),
        shape=st.sampled_from("xyz"),
        nbytes=st.sampled_from([0, 9, 31]),
        priority=st.sampled_from([1, 1, 2]),
        within_us=st.sampled_from([inf, inf, 5, 20]),
        own_us=st.sampled_from([None, None, 3]),
        data=st.data(),
    )
    def add(
        self,
        rows: int,
        shape: str,
        nbytes: int,
        priority: int,
        within_us: float,
        own_us: float | None,
        data: st.DataObject,
    ) -> None:
        tenant = data.draw(st.sampled_from(self.tenants))
        deadline_us = self.now_us + within_us
        job = Job(self.now_us, rows, shape, nbytes, tenant, priority, deadline_us)
        job.queue_timeout_us = own_us
        try:
            self.batcher.check_room(job)
        except QueueFull:
            assert self._over(job, 1.0)
            return
        assert not self._over(job, RESERVE if len(self.tenants) > 1 else 1.0)
        self._queue(job, again=False)
        if self.policy.levels is not None:
            timeout_us = self.policy.levels.of(priority).timeout_us
            limit_us = min(timeout_us or inf, own_us or inf)
            if limit_us != inf:
                self.until_us[job] = self.now_us + limit_us

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.taken))
        self.taken.remove(job)
        self._queue(job, again=True)

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
        self.until_us.pop(entry[1], None)

    @precondition(lambda self: self.policy.levels is not None)
    @rule()
    def end_waits(self) -> None:
        rejected = self.batcher.end_waits(self.now_us)
        over = [entry for entry in self.waiting if self._until_us(entry[1]) <= self.now_us]
        expected = []
        # in the order in which their times were over
        for entry in sorted(over, key=lambda entry: (self._until_us(entry[1]), entry[0][2])):
            job = entry[1]
            if self._delays(entry[0][0]):
                self.waiting.remove(entry)
                del self.until_us[job]
                self._wait(job, entry[0][0] + LATE, again=False)
            else:
                self._leave([job])
                expected.append(job)
        assert rejected == expected

    @rule(only_full=st.booleans())
    def take(self, only_full: bool) -> None:
        batch, late = self.batcher.take(self.now_us, self.cost, only_full=only_full)
        for job in late:
            assert self.now_us + self.cost(job.rows) > job.deadline_us
        self._leave(late)
        expected = self._naive_batch(only_full)
        if len(self.tenants) == 1:
            assert batch == expected
        elif not self.policy.preferred_rows:
            assert bool(batch) == bool(expected)
        if batch:
            self._leave(batch)
            self._check_rules(batch)
            self.since_us[batch[0].shape_key] = self._oldest_us(batch[0].shape_key)
            self.taken += batch

    @rule()
    def drain(self) -> None:
        drained = self.batcher.drain()
        assert [job.priority for job in drained] == [entry[0][0] for entry in sorted(self.waiting)]
        if len(self.tenants) == 1:
            assert drained == self._in_order()
        self._leave(drained)
        assert not self.waiting

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "batcher"):
            return
        jobs = self._in_order()
        books = (self.batcher.requests, self.batcher.rows, self.batcher.nbytes)
        assert books == (len(jobs), rows_of(jobs), self.bytes)
        assert all(job.number for job in jobs)
        due_us = [self._due_us(shape) for shape in {job.shape_key for job in jobs}]
        assert self.batcher.next_due_us() == min(due_us, default=None)

    # ── the naive model ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def bytes(self) -> int:
        return bytes_of(job for _, job in self.waiting)

    def _until_us(self, job: Job) -> float:
        return self.until_us.get(job, inf)

    def _delays(self, level: float) -> bool:
        assert self.policy.levels is not None
        return self.policy.levels.of(level).delays

    def _over(self, job: Job, factor: float) -> bool:
        requests_over = len(self.waiting) >= self.policy.max_queue_requests * factor
        if self.policy.levels is not None:
            most = self.policy.levels.of(job.priority).max_requests or inf
            of_level = [level for (level, _, _), _ in self.waiting if int(level) == job.priority]
            requests_over |= len(of_level) >= most * factor
        return requests_over or self.bytes + job.nbytes > self.policy.max_queue_bytes * factor

    def _queue(self, job: Job, *, again: bool) -> None:
        self.batcher.add(job, self.now_us, again=again)
        self._wait(job, job.priority, again=again)

    def _wait(self, job: Job, level: float, *, again: bool) -> None:
        self.places += 1
        shape_waits = any(job.shape_key == other.shape_key for _, other in self.waiting)
        place = self.places - 10**6 if again else self.places
        self.waiting.append(((level, job.deadline_us, place), job))
        if again or not shape_waits:
            self.since_us[job.shape_key] = self._oldest_us(job.shape_key)

    def _leave(self, jobs: list[Job]) -> None:
        """Each of them waited, and leaves once."""
        before = len(self.waiting)
        self.waiting = [entry for entry in self.waiting if entry[1] not in jobs]
        for job in jobs:
            self.until_us.pop(job, None)
        assert len(self.waiting) == before - len(jobs)
        assert not any(job.number for job in jobs)

    def _in_order(self, shape: object = None) -> list[Job]:
        entries = sorted(self.waiting, key=lambda entry: entry[0])
        return [job for _, job in entries if shape in (None, job.shape_key)]

    def _oldest_us(self, shape: object) -> float:
        return min((job.arrived_us for job in self._in_order(shape)), default=inf)

    def _due_us(self, shape: object) -> float:
        jobs = self._in_order(shape)
        tightest_us = min(job.deadline_us for job in jobs)
        due_us = self.since_us[shape] + self.policy.max_delay_us
        return min(due_us, tightest_us - 2 * self.cost(rows_of(jobs)))

    def _rows_due(self, shape: object) -> int:
        jobs = self._in_order(shape)
        rows = rows_of(jobs)
        if not self.policy.merge:
            return 1
        if rows >= self.policy.max_rows:
            return self.policy.max_rows
        sums = {rows_of(jobs[: count + 1]) for count in range(len(jobs))}
        met = sums.intersection(self.policy.preferred_rows)
        if met:
            return max(met)
        return rows if self.now_us >= self._due_us(shape) else 0

    def _naive_batch(self, only_full: bool) -> list[Job]:
        jobs = self._in_order()
        shapes = {job.shape_key: rows_of(self._in_order(job.shape_key)) for job in jobs}
        full = not self.policy.merge or max(shapes.values(), default=0) >= self.policy.max_rows
        if only_full and not full:
            return []
        for first in jobs:
            if limit := self._rows_due(first.shape_key):
                of_shape = self._in_order(first.shape_key)
                sizes = range(len(of_shape), 1, -1)
                fitting = (of_shape[:size] for size in sizes if self._fit(of_shape[:size], limit))
                return next(fitting, [first])
        return []

    def _fit(self, jobs: list[Job], limit: int) -> bool:
        on_time = self.now_us + self.cost(rows_of(jobs)) <= min(job.deadline_us for job in jobs)
        return on_time and rows_of(jobs) <= limit and bytes_of(jobs) <= self.policy.max_batch_bytes

    def _check_rules(self, batch: list[Job]) -> None:
        """What must be true of any batch, whatever the model above says; it has left already."""
        (shape,) = {job.shape_key for job in batch}
        assert len(batch) == 1 or self._fit(batch, self.policy.max_rows)
        assert self.policy.merge or len(batch) == 1
        assert all(self.now_us + self.cost(rows_of(batch)) <= job.deadline_us for job in batch)
        for left in self._in_order(shape):
            for job in batch:
                assert job.priority <= left.priority
                if (job.tenant, job.priority) == (left.tenant, left.priority):
                    assert job.deadline_us <= left.deadline_us
        if not self.policy.max_delay_us:
            first_left = min((job.priority for job in self._in_order()), default=inf)
            assert min(job.priority for job in batch) <= first_left


TestAgainstNaiveModel = AgainstNaiveModel.TestCase
TestAgainstNaiveModel.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, database=None
)
