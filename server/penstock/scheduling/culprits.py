"""Which request of a batch kills its worker: the suspects run again in ever smaller groups, until one stands alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import log2
from typing import Final, Generic, Protocol, TypeVar

MAX_ATTEMPTS: Final = 3
"""Workers that may die under one request, the last one while it runs alone."""


class Suspect(Protocol):
    """A request whose batch ended with its worker."""

    attempts: int
    """How many workers died while they ran it."""
    shape_key: Hashable


Request = TypeVar("Request", bound=Suspect)


class Group:
    """The shape key of requests that are to run together, and with nobody else."""


@dataclass(slots=True)
class Verdict(Generic[Request]):
    """What becomes of the requests of a batch that killed its worker."""

    repeated: list[Request] = field(default_factory=list)
    guilty: list[Request] = field(default_factory=list)


def judge(
    batch: Sequence[Request], *, hung: bool, single_us: float, restart_us: float
) -> Verdict[Request]:
    """Decide on a batch during which a worker died. Sets `attempts` and `shape_key` of its requests.

    The first time nobody is to blame: somebody else may have killed the worker, and the batch runs again as it was,
    without strangers. After the second time it is divided. Who stands alone the third time is guilty: that somebody
    else killed three workers in a row under one request is next to impossible. A worker that hung was killed by us:
    this is nobody else's doing, and what hangs alone gets no second chance.

    `single_us` and `restart_us`: how long one request takes alone, and a new worker to be ready. They decide whether
    halves are tried, which ends one worker more at each step, or all one by one, which ends but one.
    """
    for request in batch:
        request.attempts += 2 if hung else 1
    if len(batch) == 1 and (hung or batch[0].attempts >= MAX_ATTEMPTS):
        return Verdict(guilty=list(batch))
    for part in _parts(batch, single_us, restart_us):
        group = Group()
        for request in part:
            request.shape_key = group
    return Verdict(repeated=list(batch))


def _parts(
    batch: Sequence[Request], single_us: float, restart_us: float
) -> Sequence[Sequence[Request]]:
    count = len(batch)
    if count == 1 or max(request.attempts for request in batch) < 2:
        return (batch,)
    one_by_one_us = count * single_us + restart_us
    halving_us = log2(count) * (single_us + restart_us)
    if one_by_one_us <= halving_us:
        return [(request,) for request in batch]
    return batch[: count // 2], batch[count // 2 :]
