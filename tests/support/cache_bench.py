"""A cached pool over instances whose workers the test plays."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from fake_workers import row
from pending import Heard, joined, pending
from penstock.caching.answer import Kept
from penstock.caching.byte_lru import ByteLru
from penstock.caching.counts import CacheCounts
from penstock.caching.room import Room
from penstock.repository.cached_pool import CachedPool
from penstock.types import Array, Parameter
from penstock.workers.client_regions import Input
from penstock.workers.request import PendingRequest
from pool_bench import Bench, Encode


class CacheBench:
    """As Bench, with the cache in front."""

    def __init__(
        self,
        budget_bytes: int = 1 << 20,
        *,
        cache: ByteLru[Kept] | None = None,
        preserve_ordering: bool = False,
        max_waiting: int = 1000,
        max_waiting_bytes: int = 1 << 30,
        **policy: Any,
    ) -> None:
        self.bench = Bench(**policy)
        self.cache = ByteLru[Kept](budget_bytes) if cache is None else cache
        self.room = Room("m", max_waiting, max_waiting_bytes)
        self.pool = CachedPool(
            self.bench.pool,
            self.cache,
            self.bench.statistics,
            self.room,
            b"digest",
            preserve_ordering=preserve_ordering,
        )
        self.heard = Heard()
        self.requests: dict[str, PendingRequest] = {}

    async def with_workers(self, count: int) -> Self:
        """Start that many."""
        await self.bench.with_workers(count)
        return self

    def submit(
        self,
        name: str,
        value: float = 1.0,
        *,
        inputs: Mapping[str, Array] | None = None,
        buffers: Sequence[Input] | None = None,
        encode: Encode = joined,
        timeout_us: float | None = None,
        tenant: str = "default",
        priority: int = 1,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> PendingRequest:
        """A request of that id, for one row of that value."""
        request = pending(
            inputs or row(value),
            id=name,
            buffers=buffers,
            respond=self.heard,
            arrived_ns=time.monotonic_ns(),
            queue=self.pool,
            encode=encode,
        )
        request.plan.parameters.update(parameters or {})
        request.tenant = tenant
        request.priority = priority
        if timeout_us is not None:
            request.deadline_us = request.arrived_ns // 1000 + timeout_us
        self.requests[name] = request
        self.pool.submit(request)
        return request

    @property
    def answers(self) -> dict[str, list[float] | str]:
        """Request's id → the values of its answer, or its error's class."""
        return {
            name: np.frombuffer(answer, np.float32).tolist()
            if isinstance(answer, bytes)
            else type(answer).__name__
            for name, answer in self.heard.by_id.items()
        }

    @property
    def running(self) -> list[list[str]]:
        """All batches that workers have: the ids of those who lead."""
        return self.bench.running

    async def run(self) -> None:
        """The first worker that has a batch answers it."""
        worker = next(each for each in self.bench.workers if each.batches)
        await worker.answer()

    @property
    def counts(self) -> CacheCounts:
        """What the cache has done."""
        assert self.bench.statistics.cache is not None
        return self.bench.statistics.cache

    @property
    def books(self) -> tuple[int, int]:
        """Requests that succeeded, and that failed."""
        statistics = self.bench.statistics
        return statistics.request_ns.count, sum(statistics.failures.values())

    async def end(self) -> None:
        """Close all."""
        await self.pool.close(0)
        for worker in self.bench.workers:
            worker.close()
