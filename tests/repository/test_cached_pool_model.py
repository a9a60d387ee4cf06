"""Whatever happens to a cached pool: each request has one answer, the right one, and the books add up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_bench import CacheBench
from fake_workers import settle
from pending import joined
from penstock.caching.answer import size_bytes
from penstock.errors import InvalidRequest, PenstockError
from penstock.types import OutputTensor
from penstock.workers.request import PendingRequest

pytestmark = pytest.mark.extension("response_cache")

ONE_ENTRY = size_bytes([OutputTensor("X", "FP32", (1, 1), b"1234")])
SUBMIT = st.tuples(
    st.just("submit"),
    st.integers(1, 3),
    st.sampled_from([None, None, 1_000, 3_000, 60_000_000]),
    st.sampled_from(["a", "a", "b"]),
    st.integers(1, 2),
    st.booleans(),
)
OTHERS = st.one_of(
    st.tuples(st.just("cancel"), st.integers(0, 100)),
    st.tuples(st.sampled_from(["run", "run", "fail", "crash", "wait", "turn", "other files"])),
)
STEPS = st.lists(SUBMIT | OTHERS, max_size=25)


def refuse(request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
    raise InvalidRequest("no")


class Walk:
    """One of them."""

    def __init__(self, bench: CacheBench) -> None:
        self.bench = bench
        self.wanted: dict[str, float] = {}
        self.raised = 0

    async def step(self, kind: str, *details: Any) -> None:
        workers = [worker for worker in self.bench.bench.workers if worker.batches]
        match kind:
            case "submit":
                self.submit(*details)
            case "cancel" if self.bench.requests:
                names = list(self.bench.requests)
                self.bench.requests[names[details[0] % len(names)]].cancel()
            case "run" if workers:
                await workers[0].answer()
            case "fail" if workers:
                await workers[0].fail("no luck")
            case "crash" if workers:
                await workers[0].crash()
                await self.bench.with_workers(1)
            case "wait":
                await asyncio.sleep(0.0015)
            case "other files":
                self.bench.pool.loaded_from(str(len(self.wanted)).encode())
            case "turn":
                await settle()

    def submit(
        self, value: int, timeout_us: int | None, tenant: str, priority: int, refuses: bool
    ) -> None:
        name = str(len(self.wanted))
        self.wanted[name] = value
        try:
            self.bench.submit(
                name,
                value,
                timeout_us=timeout_us,
                tenant=tenant,
                priority=priority,
                encode=refuse if refuses else joined,
            )
        except PenstockError:
            self.raised += 1
            del self.bench.requests[name]

    async def end(self) -> None:
        """All that is left runs."""
        for _ in range(100):
            await settle()
            workers = [worker for worker in self.bench.bench.workers if worker.batches]
            if not workers:
                break
            await workers[0].answer()

    def check(self) -> None:
        answers = self.bench.answers
        assert set(answers) == set(self.bench.requests)
        for name, answer in answers.items():
            assert isinstance(answer, str) or answer == [self.wanted[name]]
        successes, failures = self.bench.books
        assert successes == sum(not isinstance(answer, str) for answer in answers.values())
        assert successes + failures == len(self.wanted)
        counts = self.bench.counts
        assert counts.hits + counts.misses == successes
        assert self.bench.cache.used_bytes <= self.bench.cache.budget_bytes
        assert self.bench.room.requests == self.bench.room.nbytes == 0
        assert self.bench.pool.explain()["response_cache"]["runs"] == 0
        assert self.bench.bench.pool.explain()["queue"]["requests"] == 0


async def walk(steps: Sequence[tuple[Any, ...]], ordered: bool, entries: int) -> None:
    bench = await CacheBench(
        entries * ONE_ENTRY, preserve_ordering=ordered, max_waiting=3, max_queue_requests=6
    ).with_workers(2)
    try:
        taken = Walk(bench)
        for step in steps:
            await taken.step(*step)
        await taken.end()
        taken.check()
        await bench.pool.close(30)
        assert bench.cache.used_bytes == 0
    finally:
        await bench.end()


@settings(max_examples=60, deadline=None)
@given(STEPS, st.booleans(), st.integers(0, 2))
def test_every_request_has_its_answer(
    steps: Sequence[tuple[Any, ...]], ordered: bool, entries: int
) -> None:
    asyncio.run(walk(steps, ordered, entries))
