"""The pool of a stateful model: requests go to the instance that has their sequence, and are never run twice."""

from __future__ import annotations

import logging
import time
from typing import Any

from penstock.errors import Unavailable
from penstock.repository.pool import Pool
from penstock.repository.unanswered import IN_A_CIRCLE, UNLOADED
from penstock.scheduling.scheduler import Scheduler
from penstock.scheduling.sequence_queue import SequenceQueue
from penstock.scheduling.sequence_scheduler import SequenceScheduler
from penstock.telemetry.statistics import FailureReason
from penstock.types import SequenceKey
from penstock.workers.instance import Instance
from penstock.workers.request import PendingRequest

log = logging.getLogger(__name__)

RELOADED = "the model was loaded anew, and its old workers had to go"


class SequencePool(Pool):
    """As Pool, but for what follows from sequences."""

    scheduler: SequenceScheduler[PendingRequest]

    replaced = False
    """Another pool takes new sequences: while this one closes, those that it has may go on to their ends. Who goes on
    with one after that is told that it is lost."""

    @property
    def queue(self) -> SequenceQueue[PendingRequest]:
        """What waits, and the sequences."""
        return self.scheduler.queue

    def holds(self, key: SequenceKey) -> bool:
        """Whether a request may go on with the sequence here."""
        return self.queue.holds(key)

    def submit_at_once(self, request: PendingRequest) -> None:
        """Refused: a request has to go to the instance that has its sequence."""
        raise Unavailable(IN_A_CIRCLE.format(model=self._statistics.model))

    def cancel(self, request: PendingRequest) -> None:
        """As the base class says."""
        self.queue.now_us = time.monotonic_ns() / 1000
        super().cancel(request)

    def add(self, instance: Instance, index: int) -> None:
        """As the base class says."""
        self.queue.now_us = time.monotonic_ns() / 1000
        super().add(instance, index)

    def explain(self) -> dict[str, Any]:
        """As the base class says, with the sequences."""
        held = self.queue.slots_held()
        told = super().explain()
        for instance, line in zip(self._instances, told["instances"], strict=True):
            line["sequences"] = [str(each) for each in held[instance]]
        told["sequences"] = {
            "strategy": "direct" if self.queue.policy.direct else "oldest",
            "slots": self.queue.policy.slots,
            "idle_us": self.queue.policy.idle_us,
            "active": self.queue.counts.active,
            "backlog": self.queue.counts.backlog,
            "ended": {ending.value: count for ending, count in self.queue.counts.ended.items()},
        }
        return told

    def _new_scheduler(self) -> Scheduler[PendingRequest]:
        assert self._policy.sequences is not None, "else it is a Pool"
        scheduler = SequenceScheduler[PendingRequest](
            self._statistics.model, self._policy.scheduling, self._policy.sequences
        )
        self._statistics.sequences = scheduler.queue.counts
        return scheduler

    def _check_closing(self, request: PendingRequest) -> None:
        if not (self.replaced and self.holds((request.tenant, request.sequence.id))):
            super()._check_closing(request)

    def _give_up(self) -> None:
        self.queue.abandon(RELOADED if self.replaced else UNLOADED)
        super()._give_up()

    def _unloaded(self, request: PendingRequest) -> Unavailable:
        reason = RELOADED if self.replaced else UNLOADED
        return self.queue.endings.loss((request.tenant, request.sequence.id), reason)

    def _dispatch(self) -> None:
        """Give due batches to the instances that have none."""
        self._dispatching = False
        now_ns = time.monotonic_ns()
        now_us = now_ns / 1000
        for instance in list(self._instances):
            if not (instance.idle and instance.can_take and self._has_turn(instance, now_us)):
                continue
            batch, late = self.scheduler.take(instance, now_us)
            if self._turns is not None:
                self._turns.took(instance, batch)
            for request, error in late:
                self._answers.fail(request, error, FailureReason.REJECTED)
            if batch:
                self._execute(instance, batch, now_ns)
                if instance.idle:
                    # it could not be sent: others of the sequences may be
                    self._schedule()
        due_us = self.queue.next_due_us()
        if due_us is not None and due_us > now_us:
            self._wake.at(due_us, now_us)
        self._count_waiting()
        self._watch_idle()

    def _has_turn(self, instance: Instance, now_us: float) -> bool:
        """Asked for only where there is something to do, for others may wait for what the instance would hold."""
        if self._turns is None:
            return True
        due_us = self.queue.due_us(instance)
        if due_us is not None and due_us <= now_us:
            return self._turns.may_take(instance)
        self._turns.took(instance, ())
        return False

    def _after_batch(self) -> None:
        super()._after_batch()
        self._watch_idle()

    def _watch_idle(self) -> None:
        idle_us = self.queue.next_idle_us
        if idle_us is not None:
            self._expire.at(idle_us, time.monotonic_ns() / 1000)

    @property
    def _empty(self) -> bool:
        return super()._empty and not (self.replaced and self.queue.live)

    def _recover(self, instance: Instance, reason: str, *, hung: bool) -> None:
        """Its sequences are lost: nothing of them is run again, for that would be another state."""
        now_us = time.monotonic_ns() / 1000
        why = f"the worker ended: {reason}"
        for request, error in self.scheduler.lose(instance, why, now_us):
            self._answers.fail(request, error, FailureReason.OTHER)

    def _end_expired(self) -> None:
        ended = self.scheduler.end_idle(time.monotonic_ns() / 1000)
        if ended:
            log.info(
                "model %s: %d sequences were idle for longer than %g s and have ended: %s",
                self._statistics.model,
                len(ended),
                self.queue.policy.idle_us / 1e6,
                ", ".join(map(str, ended[:8])),
            )
        super()._end_expired()
