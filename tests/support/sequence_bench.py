"""A pool of a stateful model, over instances whose workers the test plays."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from fake_workers import row
from pending import pending
from penstock.repository.pool_policy import PoolPolicy
from penstock.repository.sequence_pool import SequencePool
from penstock.scheduling.sequence_slots import SequencePolicy
from penstock.workers.request import PendingRequest
from pool_bench import Bench
from steps import part


class SequenceBench(Bench):
    """Its requests are called as those of `steps.part`."""

    def __init__(
        self, slots: int = 2, idle_us: int = 60_000_000, direct: bool = True, **policy: Any
    ) -> None:
        super().__init__(**{"max_rows": slots, **policy})
        sequences = SequencePolicy(slots, idle_us, direct)
        self.policy = PoolPolicy(self.policy.scheduling, sequences=sequences)
        self.sequences = SequencePool(
            self.policy, self.statistics, self._start, self._changed, policy.get("turns")
        )
        self.pool = self.sequences

    def step(self, *names: str) -> list[PendingRequest]:
        """Submit one request each, whose value is its sequence's number."""
        requests = []
        for name in names:
            terms = part(name).sequence
            request = pending(
                row(float(terms.id)),
                id=name,
                respond=self.heard,
                arrived_ns=time.monotonic_ns(),
                queue=self.pool,
            )
            request.plan = msgspec.structs.replace(request.plan, sequence=terms)
            self._prepare(request)
            self.pool.submit(request)
            requests.append(request)
        return requests

    async def replace(self, grace_s: float) -> None:
        """Close it as if another took its place."""
        self.sequences.replaced = True
        await self.sequences.close(grace_s)
