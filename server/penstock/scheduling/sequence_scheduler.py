"""The scheduler of a stateful model: its requests belong to sequences, and those to instances."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from collections.abc import Sequence as Several
from math import inf
from typing import Generic

from penstock.errors import PenstockError, QueueFull, Unavailable
from penstock.scheduling.refusals import Refusal
from penstock.scheduling.scheduler import Scheduler, SchedulingPolicy
from penstock.scheduling.sequence import Request
from penstock.scheduling.sequence_queue import SequenceQueue
from penstock.scheduling.sequence_slots import SequencePolicy
from penstock.scheduling.slo import Decision
from penstock.types import SequenceId


class SequenceScheduler(Scheduler[Request], Generic[Request]):
    """Nothing is refused here because it would be late, for that would leave a gap in its sequence: deadlines count
    only for those that wait, and for their turn. Instances get their next batch when they have none."""

    def __init__(self, model: str, policy: SchedulingPolicy, sequences: SequencePolicy) -> None:
        super().__init__(model, policy)
        self.queue = self.batcher = SequenceQueue[Request](
            model, sequences, policy.batch, policy.weight_of, self.curve.expected_us
        )

    def submit(self, request: Request, now_us: float, *, watched: bool = True) -> None:
        """Queue a request, or refuse it. Raises InvalidRequest, Unavailable, QueueFull."""
        self.queue.now_us = now_us
        self.queue.check_sequence(request)
        try:
            self.queue.check_room(request)
        except QueueFull as error:
            error.retry_after_s = self.drain_s()
            self.refused[Refusal.QUEUE_FULL] += 1
            raise
        if request.deadline_us != inf and watched:
            self._expiry.add(request)
        self.queue.add(request, now_us)

    def expired(self, now_us: float) -> Iterator[tuple[Request, Unavailable]]:
        """As the base class says."""
        self.queue.now_us = now_us
        return super().expired(now_us)

    def join(self, instance: Hashable) -> None:
        """As the base class says."""
        super().join(instance)
        self.queue.join(instance)

    def lose(
        self, instance: Hashable, reason: str, now_us: float
    ) -> list[tuple[Request, PenstockError]]:
        """An instance that has left had sequences. Returns what their requests hear."""
        self.queue.now_us = now_us
        return self.queue.lose(instance, reason)

    def take(
        self, instance: Hashable, now_us: float
    ) -> tuple[list[Request], list[tuple[Request, Unavailable]]]:
        """The next batch of an instance that has none, in the order of its rows."""
        load = self.loads[instance]
        curve = self._curve_of(load)
        self.queue.now_us = now_us
        batch, late = self.queue.take_for(instance, curve.expected_us)
        if batch:
            # with `direct`, slots without a request are rows too
            rows = 1 + batch[-1].step.slot if self.queue.policy.direct else len(batch)
            load.running.append((rows, now_us))
            load.free_at_us = now_us + curve.expected_us(rows)
        return batch, self._too_late(late)

    def not_run(self, instance: Hashable) -> None:
        """As the base class says."""
        super().not_run(instance)
        self.queue.not_run(instance)

    def finished(
        self, instance: Hashable, latencies_us: Several[float], now_us: float
    ) -> Decision | None:
        """As the base class says. The sequences go on, or end."""
        decision = super().finished(instance, latencies_us, now_us)
        if instance in self.loads:
            self.queue.now_us = now_us
            self.queue.finished(instance)
        return decision

    def end_idle(self, now_us: float) -> list[SequenceId]:
        """End the sequences that were idle for too long."""
        self.queue.now_us = now_us
        return self.queue.end_idle()
