"""A pool over instances whose workers the test plays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from fake_workers import FakeWorker, row
from pending import Heard, joined, pending
from penstock.repository.pool import Pool
from penstock.repository.pool_policy import PoolPolicy
from penstock.repository.turns import Turns
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.scheduler import SchedulingPolicy
from penstock.telemetry.statistics import ModelStatistics
from penstock.types import Array, OutputTensor
from penstock.workers.instance import Instance
from penstock.workers.request import PendingRequest

Encode = Callable[[PendingRequest, list[OutputTensor]], bytes]


class Bench:
    """A pool, its workers, and what its requests heard."""

    def __init__(
        self,
        preserve_ordering: bool = False,
        execution_timeout_us: float = 0,
        turns: Turns | None = None,
        **policy: Any,
    ) -> None:
        self.workers: list[FakeWorker] = []
        self.started: list[int] = []
        self.start_errors: list[Exception] = []
        self.changes = 0
        self.heard = Heard()
        self.statistics = ModelStatistics("m", "1", {})
        batching = BatchPolicy(**{"max_rows": 8, "merge": True, **policy})
        self.policy = PoolPolicy(
            SchedulingPolicy(batching),
            preserve_ordering=preserve_ordering,
            execution_timeout_us=execution_timeout_us,
        )
        self.pool = self._new_pool(turns)

    def _new_pool(self, turns: Turns | None) -> Pool:
        return Pool(self.policy, self.statistics, self._start, self._changed, turns)

    async def with_workers(self, count: int) -> Self:
        """Start that many."""
        for index in range(count):
            self.pool.add(await self.new_worker(), index)
        return self

    def submit(
        self,
        *ids: str,
        encode: Encode = joined,
        inputs: Mapping[str, Array] | None = None,
        timeout_us: int | None = None,
        deadline_is_clients: bool = True,
    ) -> None:
        """A request of one row for each id, whose value is the id's last character's code."""
        for name in ids:
            arrays = inputs or row(ord(name[-1]))
            request = pending(
                arrays,
                id=name,
                respond=self.heard,
                arrived_ns=time.monotonic_ns(),
                queue=self.pool,
                encode=encode,
            )
            if timeout_us is not None:
                request.deadline_us = request.arrived_ns // 1000 + timeout_us
                request.deadline_is_clients = deadline_is_clients
            self._prepare(request)
            self.pool.submit(request)
            self.last = request

    def _prepare(self, request: PendingRequest) -> None:
        """The request is about to be submitted."""

    def values(self) -> dict[str, list[float] | str]:
        """Request's id → the values of its answer, or its error's class."""
        return {
            name: np.frombuffer(answer, np.float32).tolist()
            if isinstance(answer, bytes)
            else type(answer).__name__
            for name, answer in self.heard.by_id.items()
        }

    @property
    def running(self) -> list[list[str]]:
        """All batches that workers have, by worker."""
        return [batch for worker in self.workers for batch in worker.ids]

    async def new_worker(self) -> Instance:
        self.workers.append(FakeWorker())
        return await self.workers[-1].load()

    async def _start(self, index: int) -> Instance:
        self.started.append(index)
        if self.start_errors:
            raise self.start_errors.pop(0)
        return await self.new_worker()

    def _changed(self) -> None:
        self.changes += 1

    async def end(self) -> None:
        """Close all."""
        await self.pool.close(0)
        for worker in self.workers:
            worker.close()


Make = Callable[..., Bench]
