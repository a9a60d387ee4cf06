"""A scheduler in simulated time that knows how long batches take."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.scheduler import Scheduler, SchedulingPolicy
from penstock.scheduling.service_curve import TRUSTED
from simulation import Job

MS = 1000.0
"""Microseconds."""


def scheduler(
    *instances: Hashable, max_queue_us: float = 0, slo_p99_us: float = 0, **batch: Any
) -> Scheduler[Job]:
    """One that merges, with these instances, or one named "i"."""
    rules = BatchPolicy(**{"max_rows": 8, "merge": True, **batch})
    policy = SchedulingPolicy(rules, max_queue_us=max_queue_us, slo_p99_us=slo_p99_us)
    made = Scheduler[Job]("m", policy)
    for instance in instances or ("i",):
        made.join(instance)
    return made


def teach(
    to: Scheduler[Job],
    durations_us: Mapping[int, float],
    now_us: float = 0,
    *,
    instance: Hashable = "i",
    times: int = TRUSTED,
) -> float:
    """Let batches of so many rows run for so long on the idle instance; when the last one ended."""
    for rows, duration_us in durations_us.items():
        for _ in range(times):
            to.submit(Job(now_us, rows), now_us)
            batch, _ = to.take(instance, now_us)
            assert len(batch) == 1
            now_us += duration_us
            to.finished(instance, [duration_us], now_us)
    return now_us


def taught(durations_us: Mapping[int, float], **policy: Any) -> tuple[Scheduler[Job], float]:
    """A scheduler of one instance that knows these, and the time."""
    made = scheduler(**policy)
    return made, teach(made, durations_us)


def submit(to: Scheduler[Job], now_us: float, within_us: float, **job: Any) -> Job:
    """Queue a request that wants its answer within that time."""
    request = Job(now_us, deadline_us=now_us + within_us, **job)
    to.submit(request, now_us)
    return request
