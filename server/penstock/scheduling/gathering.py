"""Who goes into a batch, of those whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

from penstock.scheduling.lane import Queueable

Cost = Callable[[int], float]
"""Rows → microseconds that a batch of them is expected to take; 0 while that is not known."""

Request = TypeVar("Request", bound=Queueable)


def unknown(_: int) -> float:
    """The cost of what has never run."""
    return 0.0


@dataclass(slots=True)
class Gathered(Generic[Request]):
    """What came of it."""

    batch: list[Request]
    late: list[Request]
    """Met on the way, and not on time even if they ran alone now."""
    rows: int
    """Of the batch."""
    nbytes: int


def gather(
    in_order: Iterable[Request], limit: int, max_bytes: int, now_us: float, cost: Cost
) -> Gathered[Request]:
    """The next requests of up to `limit` rows and at least one, and those among them that can't be on time.

    The batch ends where one more would make it too long for the most pressing deadline in it.
    """
    batch: list[Request] = []
    late: list[Request] = []
    rows = nbytes = 0
    tightest_us = inf
    for request in in_order:
        more = rows + request.rows
        if batch and (more > limit or nbytes + request.nbytes > max_bytes):
            break
        deadline_us = request.deadline_us
        if deadline_us != inf:
            if now_us + cost(request.rows) > deadline_us:
                late.append(request)
                continue
            if deadline_us < tightest_us:
                tightest_us = deadline_us
        if batch and tightest_us != inf and now_us + cost(more) > tightest_us:
            break
        batch.append(request)
        rows = more
        nbytes += request.nbytes
        if rows >= limit:
            break
    return Gathered(batch, late, rows, nbytes)
