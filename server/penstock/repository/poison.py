"""Requests that kill workers: found, answered, remembered, and refused when they come again."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.errors import WorkerCrashed
from penstock.repository.answers import Answers
from penstock.repository.restarts import Restarts
from penstock.scheduling.culprits import judge
from penstock.scheduling.quarantine import Quarantine
from penstock.scheduling.refusals import Refusal
from penstock.scheduling.scheduler import Scheduler
from penstock.telemetry.statistics import FailureReason
from penstock.workers.request import PendingRequest


class Poison:
    """What one model knows of them."""

    def __init__(
        self,
        scheduler: Scheduler[PendingRequest],
        restarts: Restarts,
        answers: Answers,
        quarantine_us: float,
    ) -> None:
        self._scheduler = scheduler
        self._restarts = restarts
        self._answers = answers
        self.quarantine = Quarantine(quarantine_us)

    def check(self, request: PendingRequest, now_us: float) -> None:
        """Raises WorkerCrashed for a request like one that was found before."""
        if self.quarantine and (reason := self.quarantine.reason(request, now_us)):
            self._scheduler.refused[Refusal.QUARANTINED] += 1
            raise WorkerCrashed(f"refused, for a request like this was run before: {reason}")

    def survivors(
        self, batch: Sequence[PendingRequest], reason: str, now_us: float, *, hung: bool
    ) -> Sequence[PendingRequest]:
        """Of a batch during which a worker ended, those that may run again; the others get their error."""
        verdict = judge(
            batch,
            hung=hung,
            single_us=self._scheduler.curve.expected_us(1),
            restart_us=self._restarts.last_s * 1e6,
        )
        if verdict.guilty:
            self._restarts.forgive()
        for request in verdict.guilty:
            text = f"the worker process ended while it ran this request: {reason}"
            self.quarantine.add(request, text, now_us)
            self._answers.fail(request, WorkerCrashed(text), FailureReason.BACKEND)
        return verdict.repeated
