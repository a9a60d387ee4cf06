"""One scheduler, its instances and its clients in simulated time: no event loop, no clock, the same run every time.

It drives `Scheduler` as `repository/pool.py` does: an idle instance first, a busy one only when it is nearly done; a
batch that ends is replaced before its answers are handed out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random

from penstock.errors import PenstockError
from penstock.scheduling.scheduler import Scheduler, SchedulingPolicy
from penstock.scheduling.slo import Decision

SLABS = 2
"""Batches that an instance may hold: one runs, one waits."""

Service = Callable[[int, float], float]
"""(rows, now) → microseconds that the batch takes."""


@dataclass(eq=False, slots=True)
class Job:
    """A request, and what became of it."""

    arrived_us: float = 0.0
    rows: int = 1
    shape_key: Hashable = "a"
    nbytes: int = 10
    tenant: str = "default"
    priority: float = 1
    deadline_us: float = inf
    deadline_is_clients: bool = True
    queue_timeout_us: float | None = None
    number: int = 0
    done: bool = False
    arrived_ns: int = field(init=False)
    ended_us: float | None = None
    """When it was answered, or heard that it won't be."""
    error: PenstockError | None = None
    refused: bool = False
    """On arrival."""
    then: Callable[[], None] | None = None
    """What its client does next."""

    def __post_init__(self) -> None:
        self.arrived_ns = round(self.arrived_us * 1000)

    @property
    def latency_us(self) -> float:
        """From its arrival to its end."""
        assert self.ended_us is not None
        return self.ended_us - self.arrived_us

    @property
    def good(self) -> bool:
        """Answered, and in time."""
        return (
            self.error is None and self.ended_us is not None and self.ended_us <= self.deadline_us
        )


@dataclass(eq=False, slots=True)
class Stream:
    """Clients of one kind: `rate` requests a second at random (Poisson), or `clients` that have one each under way."""

    rate: float = 0.0
    clients: int = 0
    tenant: str = "default"
    timeout_us: float = inf
    priority: int = 1
    rows: tuple[int, ...] = (1,)
    shapes: tuple[str, ...] = ("a",)
    deadline_is_clients: bool = True
    patience_us: float = 1_000.0
    """How long a client that was refused waits before it asks again."""


@dataclass(eq=False, slots=True)
class Batch:
    """What an instance was given."""

    jobs: list[Job]
    began_us: float = 0.0
    ended_us: float = 0.0

    @property
    def rows(self) -> int:
        """Of all its requests."""
        return sum(job.rows for job in self.jobs)


@dataclass(eq=False, slots=True)
class Instance:
    """Its first batch runs."""

    batches: deque[Batch] = field(default_factory=deque)


class Simulation:
    """Let time pass with `run`, as often as you like; change streams and `service` between."""

    def __init__(
        self,
        policy: SchedulingPolicy,
        service: Service,
        streams: Iterable[Stream] = (),
        instances: int = 1,
        seed: int = 1,
    ) -> None:
        self.scheduler = Scheduler[Job]("m", policy)
        self.service = service
        self.now_us = 0.0
        self.jobs: list[Job] = []
        """All that were submitted, by their arrival."""
        self.batches: list[Batch] = []
        """All that began to run."""
        self.decisions: list[Decision] = []
        self.most_waiting = 0
        self._random = Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._wake_us = inf
        self._instances = [Instance() for _ in range(instances)]
        for instance in self._instances:
            self.scheduler.join(instance)
        for stream in streams:
            self.start(stream)

    def start(self, stream: Stream) -> None:
        """Its clients begin to send now."""
        if stream.rate:
            self._at(self.now_us + self._gap_us(stream), partial(self._arrive, stream))
        for _ in range(stream.clients):
            self._at(self.now_us + self._random.random() * 1000, partial(self._ask, stream))

    def submit_at_their_time(self, jobs: Iterable[Job]) -> None:
        """Single requests."""
        for job in jobs:
            self._at(job.arrived_us, partial(self._submit, job))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end_us = self.now_us + seconds * 1e6
        while self._events and self._events[0][0] <= end_us:
            self.now_us = self._events[0][0]
            while self._events and self._events[0][0] == self.now_us:
                heappop(self._events)[2]()
            self._expire()
            self._dispatch()
            self.most_waiting = max(self.most_waiting, self.scheduler.batcher.requests)
        self.now_us = end_us

    # ── clients ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _gap_us(self, stream: Stream) -> float:
        return self._random.expovariate(stream.rate) * 1e6

    def _arrive(self, stream: Stream) -> None:
        if stream.rate:
            self._submit(self._job(stream))
            self._at(self.now_us + self._gap_us(stream), partial(self._arrive, stream))

    def _ask(self, stream: Stream) -> None:
        job = self._job(stream)

        def ask_again() -> None:
            pause_us = stream.patience_us if job.error is not None else 0.0
            self._at(self.now_us + pause_us, partial(self._ask, stream))

        job.then = ask_again
        self._submit(job)

    def _job(self, stream: Stream) -> Job:
        return Job(
            self.now_us,
            self._random.choice(stream.rows),
            self._random.choice(stream.shapes),
            tenant=stream.tenant,
            priority=stream.priority,
            deadline_us=self.now_us + stream.timeout_us,
            deadline_is_clients=stream.deadline_is_clients,
        )

    def _submit(self, job: Job) -> None:
        self.jobs.append(job)
        try:
            self.scheduler.submit(job, self.now_us)
        except PenstockError as error:
            job.refused = True
            self._end(job, error)

    # ── queue → instance → answer ───────────────────────────────────────────────────────────────────────────────────

    def _dispatch(self) -> None:
        scheduler = self.scheduler
        while scheduler.batcher.requests:
            instance = self._next_instance()
            if instance is None:
                break
            jobs, late = scheduler.take(instance, self.now_us)
            for job, error in late:
                assert not job.done
                self._end(job, error)
            if not jobs:
                if not instance.batches:
                    self._wake_at(scheduler.next_due_us())
                break
            assert all(job.number == 0 and not job.done for job in jobs)
            instance.batches.append(Batch(jobs))
            if len(instance.batches) == 1:
                self._begin(instance)

    def _next_instance(self) -> Instance | None:
        free = [instance for instance in self._instances if len(instance.batches) < SLABS]
        for instance in free:
            if not instance.batches:
                return instance
        if not free:
            return None
        first = min(free, key=self.scheduler.ahead_us)
        ahead_us = self.scheduler.ahead_us(first)
        if ahead_us <= self.now_us:
            return first
        self._wake_at(ahead_us)
        return None

    def _begin(self, instance: Instance) -> None:
        batch = instance.batches[0]
        batch.began_us = self.now_us
        batch.ended_us = self.now_us + self.service(batch.rows, self.now_us)
        self.batches.append(batch)
        self._at(batch.ended_us, partial(self._finish, instance))

    def _finish(self, instance: Instance) -> None:
        batch = instance.batches.popleft()
        if instance.batches:
            self._begin(instance)
        alive = [job for job in batch.jobs if not job.done]
        latencies_us = [self.now_us - job.arrived_us for job in alive]
        decision = self.scheduler.finished(instance, latencies_us, self.now_us)
        if decision is not None:
            self.decisions.append(decision)
        self._dispatch()
        for job in alive:
            self._end(job, None)

    def _end(self, job: Job, error: PenstockError | None) -> None:
        assert not job.done, "a request got two answers"
        job.done, job.ended_us, job.error = True, self.now_us, error
        if not job.refused:
            self.scheduler.answered(job, in_time=error is None)
        if job.then is not None:
            job.then()

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _expire(self) -> None:
        for job, error in self.scheduler.expired(self.now_us):
            self._end(job, error)
        self._wake_at(self.scheduler.next_expiry_us)

    def _wake_at(self, at_us: float | None) -> None:
        if at_us is None or self.now_us < self._wake_us <= at_us:
            return
        assert at_us > self.now_us, "the scheduler wants to be woken at once, for ever"
        self._wake_us = at_us
        self._at(at_us, lambda: None)

    def _at(self, at_us: float, event: Callable[[], None]) -> None:
        heappush(self._events, (at_us, next(self._numbers), event))


# ── instances ───────────────────────────────────────────────────────────────────────────────────────────────────────


def noisy(service: Service, seed: int = 7, noise: float = 0.2) -> Service:
    """The same, give or take that share."""
    random = Random(seed)
    return lambda rows, now_us: service(rows, now_us) * random.uniform(1 - noise, 1 + noise)


def with_outliers(
    service: Service, share: float = 0.08, times: float = 10, seed: int = 9
) -> Service:
    """The same, but some batches take several times as long."""
    random = Random(seed)
    return lambda rows, now_us: service(rows, now_us) * (times if random.random() < share else 1)
