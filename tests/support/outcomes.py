"""What became of the requests of a simulation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simulation import Job


def between(jobs: Iterable[Job], from_s: float, to_s: float) -> list[Job]:
    """Those that came in that time."""
    return [job for job in jobs if from_s * 1e6 <= job.arrived_us < to_s * 1e6]


def of(jobs: Iterable[Job], tenant: str) -> list[Job]:
    """Those of the tenant."""
    return [job for job in jobs if job.tenant == tenant]


def goodput(jobs: Iterable[Job], from_s: float, to_s: float) -> float:
    """Answers in time, a second."""
    ended = (job for job in jobs if job.good and from_s * 1e6 <= (job.ended_us or 0) < to_s * 1e6)
    return sum(1 for _ in ended) / (to_s - from_s)


def quantile_us(jobs: Iterable[Job], share: float) -> float:
    """Latency that this share of the answered ones keeps."""
    latencies = sorted(job.latency_us for job in jobs if job.done and job.error is None)
    return latencies[min(len(latencies) - 1, int(share * len(latencies)))]


def refused_share(jobs: Sequence[Job]) -> float:
    """Of all, those that were refused on arrival."""
    return sum(job.refused for job in jobs) / len(jobs)


def late_share(jobs: Iterable[Job]) -> float:
    """Of those that were admitted and have ended, the ones that got no answer in time."""
    admitted = [job for job in jobs if job.done and not job.refused]
    return sum(not job.good for job in admitted) / len(admitted)
