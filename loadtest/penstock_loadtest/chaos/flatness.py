"""Whether a server holds as much after the chaos as before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from penstock_loadtest.chaos.family import Reading
from penstock_loadtest.chaos.models import Target


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much more there may be after a run of any length, with all clients gone."""

    gateway_rss_kib: int = 96 * 1024
    """Allocators keep what bursts and large bodies once needed."""
    supervisor_rss_kib: int = 8 * 1024
    gateway_descriptors: int = 8
    """Connections that the server has not seen the end of yet."""
    supervisor_descriptors: int = 0
    worker_descriptors: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that is held, for the report."""

    what: str
    before: int
    after: int
    allowed: int
    """The most that may be there after."""

    @property
    def flat(self) -> bool:
        """Whether it is within its bound."""
        return self.after <= self.allowed


def expected_workers(targets: Iterable[Target]) -> tuple[str, ...]:
    """The names of all models' workers, in order."""
    return tuple(sorted(f"{t.name}/1#{index}" for t in targets for index in range(t.instances)))


def rows(before: Reading, after: Reading, bounds: Bounds) -> list[Row]:
    """All that is compared."""
    limits = {
        "gateway_rss_kib": bounds.gateway_rss_kib,
        "supervisor_rss_kib": bounds.supervisor_rss_kib,
        "gateway_descriptors": bounds.gateway_descriptors,
        "supervisor_descriptors": bounds.supervisor_descriptors,
        "worker_descriptors": bounds.worker_descriptors,
        "processes": 0,
        "slabs": 0,
    }
    found = []
    for name, more in limits.items():
        old, new = getattr(before, name), getattr(after, name)
        found.append(Row(name.replace("_", " "), old, new, old + more))
    return found


def compare(
    targets: Iterable[Target], before: Reading, after: Reading, bounds: Bounds
) -> list[str]:
    """Each line one thing that is not flat, or not as it must be."""
    lines = [
        f"{row.what}: {row.before} before, {row.after} after, at most {row.allowed} are allowed"
        for row in rows(before, after, bounds)
        if not row.flat
    ]
    if after.workers != (expected := expected_workers(targets)):
        missing, extra = Counter(expected), Counter(after.workers)
        lines.append(
            f"workers: missing are {sorted((missing - extra).elements())}, too many are "
            f"{sorted((extra - missing).elements())}"
        )
    if left := sorted(after.shared_memory - before.shared_memory):
        lines.append(f"/dev/shm: new are {', '.join(left[:10])}")
    return lines
