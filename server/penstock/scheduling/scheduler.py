"""All decisions of one model's pool: whom to take, whom to refuse, which batch for which instance, and who is late.

Pure logic, like all of this package: the pool brings the time and does the I/O, and simulations do the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, Generic, Protocol, TypeVar

from penstock.errors import QueueFull, Unavailable
from penstock.scheduling.admission import Margin, Prober, expected_start_us
from penstock.scheduling.batcher import Batcher, BatchPolicy
from penstock.scheduling.expiry import Expiry
from penstock.scheduling.gathering import unknown
from penstock.scheduling.lane import Queueable
from penstock.scheduling.refusals import Refusal, timed_out
from penstock.scheduling.service_curve import ServiceCurve
from penstock.scheduling.slo import Decision, SloController

AHEAD_US: Final = 1_000
AHEAD_SHARE: Final = 0.05
"""How long before the end of a batch its instance gets the next one, and as a share of the batch's time: long enough
to gather and send it, and no longer, for what is sent can't be overtaken any more."""


class Schedulable(Queueable, Protocol):
    """A request in the scheduler's hands."""

    done: bool
    """Whether it has its answer."""
    deadline_is_clients: bool
    """Else it is the server's own policy."""


Request = TypeVar("Request", bound=Schedulable)


@dataclass(frozen=True, slots=True)
class SchedulingPolicy:
    """What a model's configuration and the server's settings say together."""

    batch: BatchPolicy
    max_queue_us: float = 0
    """Longest wait that a new request may have to expect; 0: any."""
    slo_p99_us: float = 0
    """The objective for the p99; 0: none, and batch size and delay stay the policy's."""
    weight_of: Callable[[str], float] = lambda _: 1.0
    """Tenant → its share of a busy model, relative to the others'."""


@dataclass(slots=True)
class Load:
    """What one instance has to do."""

    curve: ServiceCurve = field(default_factory=ServiceCurve)
    running: deque[tuple[int, float]] = field(default_factory=deque)
    """Rows of each of its batches, and when they were given."""
    free_at_us: float = 0.0
    """When it should be done with all of them."""
    last_done_us: float = 0.0


class Scheduler(Generic[Request]):
    """Instances are named by any hashable thing. Times are microseconds of one monotonic clock."""

    def __init__(self, model: str, policy: SchedulingPolicy) -> None:
        self.model = model
        self.policy = policy
        self.curve = ServiceCurve()
        """Of all instances together."""
        self.batcher = Batcher[Request](
            model, policy.batch, policy.weight_of, self.curve.expected_us
        )
        self.loads: dict[Hashable, Load] = {}
        self.refused: dict[Refusal, int] = dict.fromkeys(Refusal, 0)
        self.slo = (
            SloController(policy.slo_p99_us, policy.batch.max_rows) if policy.slo_p99_us else None
        )
        self._expiry = Expiry[Request]()
        self._margin = Margin()
        self._prober = Prober()
        self._probing: Request | None = None
        self._probe: tuple[Hashable, float] | None = None
        """The instance that the last one was given to, and when."""
        self._row_us = 0.0
        """What one row more adds to the wait of those behind it."""

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, request: Request, now_us: float, *, watched: bool = True) -> None:
        """Queue a request, or refuse it. Unless it is `watched`, it is not among the `expired` when its time is over.

        Raises QueueFull, DeadlineExceeded, Unavailable, each with the time after which trying again should work.
        """
        try:
            self.batcher.check_room(request)
        except QueueFull as error:
            error.retry_after_s = self.drain_s()
            self.refused[Refusal.QUEUE_FULL] += 1
            raise
        most_us = self.policy.max_queue_us
        if most_us and self.batcher.rows * self._row_us > most_us:
            self._check_wait(request, now_us)
        if request.deadline_us != inf:
            self._check_deadline(request, now_us)
            if watched:
                self._expiry.add(request)
        self.batcher.add(request, now_us)

    def again(self, request: Request, now_us: float) -> None:
        """Queue a request once more that was taken before: it goes first, and no bound refuses it."""
        self.batcher.add(request, now_us, again=True)

    def withdraw(self, request: Request) -> bool:
        """Take a request out of the queue; False when it isn't there (any more)."""
        return self.batcher.cancel(request)

    def answered(self, request: Request, *, in_time: bool) -> None:
        """It has its answer, or needs none any more; `in_time`: it is the one that its client wanted."""
        if request.deadline_us != inf:
            self._expiry.answered(request)
            if in_time:
                self._margin.kept()

    def expired(self, now_us: float) -> Iterator[tuple[Request, Unavailable]]:
        """Requests whose time is over, whether they wait or run; out of the queue, and with the error they get."""
        for request in self._expiry.due(now_us):
            self.batcher.cancel(request)
            yield request, self.missed(request)
        if self.batcher.times is not None:
            for request, error in self._end_waits(now_us):
                if request.deadline_us != inf:
                    self._expiry.answered(request)
                yield request, error

    def missed(self, request: Request) -> Unavailable:
        """The error of a request whose time is over, which is counted."""
        return self._missed(request, Refusal.EXPIRED, "")

    @property
    def next_expiry_us(self) -> float | None:
        """When `expired` may have something."""
        times, next_us = self.batcher.times, self._expiry.next_us
        if times is None or times.next_us is None:
            return next_us
        return times.next_us if next_us is None else min(times.next_us, next_us)

    def _end_waits(self, now_us: float) -> list[tuple[Request, Unavailable]]:
        """Those that the queue policies refuse now; this is no miss, for nobody promised them a turn."""
        rejected = self.batcher.end_waits(now_us)
        self.refused[Refusal.QUEUE_TIMEOUT] += len(rejected)
        why = "its level's queue policy lets it wait no longer"
        return [(request, timed_out(self.model, False, why)) for request in rejected]

    # ── batches ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self, instance: Hashable) -> None:
        """An instance takes part from now on."""
        self.loads[instance] = Load()

    def leave(self, instance: Hashable) -> None:
        """It doesn't any more."""
        self.loads.pop(instance, None)

    def take(
        self, instance: Hashable, now_us: float
    ) -> tuple[list[Request], list[tuple[Request, Unavailable]]]:
        """The instance's next batch, and those that could not be on time in any.

        An instance that is busy gets only what no waiting could make bigger: the rest may still grow while it works.
        """
        ended = [] if self.batcher.times is None else self._end_waits(now_us)
        load = self.loads[instance]
        curve = self._curve_of(load)
        busy_us = max(0.0, load.free_at_us - now_us) if load.running else 0.0
        cost = curve.expected_us if not busy_us else _after(busy_us, curve)
        if self._probing is not None and self._probing.number:
            # what is believed is just what is to be tested
            cost = unknown
        self._probing = None
        batch, late = self.batcher.take(now_us, cost, only_full=bool(load.running))
        if batch:
            if cost is unknown:
                self._probe = instance, now_us
            rows = sum(request.rows for request in batch)
            load.running.append((rows, now_us))
            load.free_at_us = now_us + busy_us + curve.expected_us(rows)
        return batch, ended + self._too_late(late)

    def take_alone(self, instance: Hashable, request: Request, now_us: float) -> None:
        """Give an idle instance a request that was never queued."""
        load = self.loads[instance]
        load.running.append((request.rows, now_us))
        load.free_at_us = now_us + self._curve_of(load).expected_us(request.rows)
        if request.deadline_us != inf:
            self._expiry.add(request)

    def _too_late(self, late: Sequence[Request]) -> list[tuple[Request, Unavailable]]:
        return [(r, self._missed(r, Refusal.TOO_LATE, "it could not be run in time")) for r in late]

    def _curve_of(self, load: Load) -> ServiceCurve:
        """The instance's own where there are several, and something is known of it."""
        return load.curve if load.curve.known and len(self.loads) > 1 else self.curve

    def not_run(self, instance: Hashable) -> None:
        """What was taken last for the instance could not be given to it."""
        load = self.loads[instance]
        rows, _ = load.running.pop()
        load.free_at_us -= self._curve_of(load).expected_us(rows)

    def busy_since_us(self, instance: Hashable) -> float | None:
        """Since when the instance runs its present batch; None when it has none."""
        load = self.loads[instance]
        return max(load.running[0][1], load.last_done_us) if load.running else None

    def ahead_us(self, instance: Hashable) -> float:
        """From when on a busy instance may be given its next batch."""
        load = self.loads[instance]
        if not load.running:
            return 0.0
        rows, _ = load.running[-1]
        return load.free_at_us - AHEAD_US - AHEAD_SHARE * self._curve_of(load).expected_us(rows)

    def next_due_us(self) -> float | None:
        """When an idle instance will get something though nothing arrives."""
        return self.batcher.next_due_us()

    def finished(
        self, instance: Hashable, latencies_us: Sequence[float], now_us: float
    ) -> Decision | None:
        """The oldest batch of the instance has ended; `latencies_us` are those of its requests that were answered.

        Returns what the SLO controller has newly decided, which holds already.
        """
        load = self.loads.get(instance)
        if load is None:
            return None
        rows, given_us = load.running.popleft()
        duration_us = now_us - max(given_us, load.last_done_us)
        load.last_done_us = now_us
        if (instance, given_us) == self._probe:
            self._prober.took(given_us, duration_us)
        self.curve.observe(rows, duration_us, now_us)
        if len(self.loads) > 1:
            load.curve.observe(rows, duration_us, now_us)
        curve = self._curve_of(load)
        load.free_at_us = now_us + sum(curve.expected_us(rows) for rows, _ in load.running)
        full = self.batcher.batch_rows
        self._row_us = self.curve.expected_us(round(full)) / full / len(self.loads)
        if self.slo is None:
            return None
        backlog = self.batcher.rows >= full
        self.slo.observe(rows, latencies_us, now_us, backlog=backlog)
        decision = self.slo.decide(self.curve, len(self.loads), now_us)
        if decision is not None:
            self.batcher.rows_cap, self.batcher.delay_us = decision.rows_cap, decision.delay_us
        return decision

    # ── how long ────────────────────────────────────────────────────────────────────────────────────────────────────

    def drain_s(self) -> float | None:
        """How long all that waits will take, in seconds; None while that is not known."""
        return self.batcher.rows * self._row_us / 1e6 or None

    def expected_wait_us(self, request: Request, now_us: float) -> float:
        """How long this request would wait for its batch if it came now."""
        free_at_us = [load.free_at_us if load.running else now_us for load in self.loads.values()]
        ahead = self.batcher.levels.rows_before(request)
        full = self.batcher.batch_rows
        return expected_start_us(now_us, ahead, free_at_us, full, self.curve) - now_us

    def _check_deadline(self, request: Request, now_us: float) -> None:
        wait_us = self.expected_wait_us(request, now_us) * (1 + self._margin.share)
        # behind others its own batch will be as full as theirs
        rows = max(request.rows, self.batcher.rows_cap) if self.batcher.requests else request.rows
        answer_us = wait_us + self.curve.upper_us(rows)
        left_us = request.deadline_us - now_us
        if answer_us <= left_us:
            return
        if left_us > 0 and not wait_us and self._prober.may_try(now_us, answer_us):
            self._probing = request
            return
        self.refused[Refusal.TOO_LATE] += 1
        why = f"the answer would take {_ms(answer_us)}, and {_ms(max(0.0, left_us))} are left"
        error = timed_out(self.model, request.deadline_is_clients, why)
        too_long_us = answer_us - left_us
        if too_long_us <= wait_us:
            # else it would be late even if nobody else waited
            error.retry_after_s = max(too_long_us, 1_000) / 1e6
        raise error

    def _check_wait(self, request: Request, now_us: float) -> None:
        """Raises QueueFull where the wait would be longer than it may: the length of a queue says little of that."""
        wait_us, most_us = self.expected_wait_us(request, now_us), self.policy.max_queue_us
        if wait_us <= most_us:
            return
        self.refused[Refusal.QUEUE_TIME] += 1
        raise QueueFull(
            f"Exceeds maximum queue size: model '{self.model}' has work for {_ms(wait_us)} waiting, "
            f"{_ms(most_us)} is the bound",
            (wait_us - most_us) / 1e6,
        )

    def _missed(self, request: Request, refusal: Refusal, why: str) -> Unavailable:
        """It had been admitted."""
        self.refused[refusal] += 1
        self._margin.missed()
        if self.slo is not None and refusal is Refusal.EXPIRED:
            self.slo.missed()
        return timed_out(self.model, request.deadline_is_clients, why)


def _after(busy_us: float, curve: ServiceCurve) -> Callable[[int], float]:
    return lambda rows: busy_us + curve.expected_us(rows)


def _ms(duration_us: float) -> str:
    return f"{duration_us / 1000:.4g} ms"
