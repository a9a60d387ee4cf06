"""Whether one more request may wait: the bounds of a queue, and of each of its levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from penstock.errors import QueueFull
from penstock.scheduling.lane import Request
from penstock.scheduling.levels import Levels

if TYPE_CHECKING:
    from penstock.scheduling.batcher import BatchPolicy

RESERVE: Final = 1.125
"""Over the bounds of the queue, for tenants that have less than an equal part of it: who fills it must not lock others
out."""


class Room:
    """What a policy leaves to those that come."""

    def __init__(self, model: str, policy: BatchPolicy) -> None:
        self._model = model
        self._policy = policy

    def check(self, request: Request, levels: Levels[Request], requests: int, nbytes: int) -> None:
        """Raises QueueFull where one more request would be over a bound. `requests`, `nbytes`: of those that wait."""
        policy = self._policy
        factor = RESERVE if _has_little(request.tenant, levels, requests) else 1.0
        if requests >= policy.max_queue_requests * factor:
            raise QueueFull(
                f"Exceeds maximum queue size: model '{self._model}' has {requests} requests waiting"
            )
        if nbytes + request.nbytes > policy.max_queue_bytes * factor:
            raise QueueFull(
                f"Exceeds maximum queue size: model '{self._model}' has {nbytes} bytes waiting, "
                f"{request.nbytes} more are over the bound of {policy.max_queue_bytes}"
            )

    def check_level(self, request: Request, levels: Levels[Request], requests: int) -> None:
        """Raises QueueFull where one more would be over what the policy of its level allows."""
        assert self._policy.levels is not None, "there are policies"
        most = self._policy.levels.of(request.priority).max_requests
        waiting = levels.requests_of(request.priority) if most else 0
        if waiting < most or not most:
            return
        factor = RESERVE if _has_little(request.tenant, levels, requests) else 1.0
        if waiting >= most * factor:
            raise QueueFull(
                f"Exceeds maximum queue size: level {int(request.priority)} of model '{self._model}' has {waiting}"
                " requests waiting"
            )


def _has_little(tenant: str, levels: Levels[Request], requests: int) -> bool:
    """Whether others wait too, and the tenant has less than an equal part of the queue."""
    lanes = list(levels.lanes())
    tenants = {lane.tenant for lane in lanes} | {tenant}
    own = sum(len(lane) for lane in lanes if lane.tenant == tenant)
    return len(tenants) > 1 and own * len(tenants) < requests
