"""A pool over instances whose workers the test plays: what is queued, batched, repeated, answered, and in which order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from fake_workers import FakeWorker, row, rows, settle
from pending import Heard, pending
from penstock.errors import (
    InternalError,
    InvalidRequest,
    LoadFailed,
    ModelFailed,
    QueueFull,
    Unavailable,
    WorkerCrashed,
)
from penstock.repository import pool as pool_module
from penstock.repository.pool import Pool
from penstock.scheduling.batcher import BatchPolicy
from penstock.telemetry.statistics import FailureReason, ModelStatistics
from penstock.types import OutputTensor
from penstock.workers.instance import Instance
from penstock.workers.request import PendingRequest

Encode = Callable[[PendingRequest, list[OutputTensor]], bytes]


class Bench:
    """A pool, its workers, and what its requests heard."""

    def __init__(self, preserve_ordering: bool = False, **policy: Any) -> None:
        self.workers: list[FakeWorker] = []
        self.started: list[int] = []
        self.start_errors: list[Exception] = []
        self.changes = 0
        self.heard = Heard()
        self.statistics = ModelStatistics("m", "1", {})
        self.pool = Pool(
            BatchPolicy(**{"max_rows": 8, "merge": True, **policy}),
            preserve_ordering,
            self.statistics,
            self._start,
            self._changed,
        )

    async def with_workers(self, count: int) -> Bench:
        """Start that many."""
        for index in range(count):
            self.pool.add(await self._new(), index)
        return self

    def submit(self, *ids: str, encode: Encode | None = None, **inputs: Any) -> None:
        """A request of one row for each id, whose value is the id's last character's code."""
        for name in ids:
            arrays = inputs or row(ord(name[-1]))
            request = pending(
                arrays,
                id=name,
                respond=self.heard,
                arrived_ns=time.monotonic_ns(),
                queue=self.pool,
                **({} if encode is None else {"encode": encode}),
            )
            self.pool.submit(request)
            self.last = request

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

    async def _new(self) -> Instance:
        self.workers.append(FakeWorker())
        return await self.workers[-1].load()

    async def _start(self, index: int) -> Instance:
        self.started.append(index)
        if self.start_errors:
            raise self.start_errors.pop(0)
        return await self._new()

    def _changed(self) -> None:
        self.changes += 1

    async def end(self) -> None:
        """Close all."""
        await self.pool.close(0)
        for worker in self.workers:
            worker.close()


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def one(**policy: Any) -> Bench:
        benches.append(Bench(**policy))
        return benches[-1]

    yield one
    for bench in benches:
        await bench.end()


Make = Callable[..., Bench]


async def test_what_comes_together_goes_together(make: Make) -> None:
    bench = await make().with_workers(1)
    bench.submit("a", "b", "c")
    assert bench.running == []
    await settle()
    assert bench.running == [["a", "b", "c"]]
    await bench.workers[0].answer()
    assert bench.values() == {"a": [97], "b": [98], "c": [99]}
    assert (bench.statistics.execution_count, bench.statistics.inference_count) == (1, 3)
    assert bench.statistics.pending == bench.statistics.queued_bytes == 0


async def test_requests_wait_for_the_first_instance(make: Make) -> None:
    bench = make()
    bench.submit("a")
    await settle()
    assert not bench.pool.ready
    assert (bench.statistics.pending, bench.statistics.queued_bytes) == (1, 4)
    await bench.with_workers(1)
    await settle()
    assert bench.pool.ready
    assert bench.running == [["a"]]


async def test_a_busy_worker_gets_only_full_batches(make: Make) -> None:
    bench = await make(max_rows=2).with_workers(1)
    bench.submit("a")
    await settle()
    bench.submit("b")
    await settle()
    assert bench.running == [["a"]]
    bench.submit("c", "d")
    await settle()
    assert bench.running == [["a"], ["b", "c"]]
    await bench.workers[0].answer()
    await bench.workers[0].answer()
    assert bench.running == [["d"]]


async def test_idle_instances_come_first(make: Make) -> None:
    bench = await make(merge=False).with_workers(2)
    bench.submit("a", "b", "c")
    await settle()
    assert [worker.ids for worker in bench.workers] == [[["a"], ["c"]], [["b"]]]


async def test_a_delay_is_waited_for(make: Make) -> None:
    bench = await make(max_delay_us=5_000).with_workers(1)
    bench.submit("a")
    await settle()
    assert bench.running == []
    while not bench.running:
        await asyncio.sleep(0.001)
    assert time.monotonic_ns() - bench.last.arrived_ns >= 5_000_000
    await bench.workers[0].answer()
    assert bench.values() == {"a": [97]}


async def test_a_full_queue_refuses(make: Make) -> None:
    bench = make(max_queue_requests=1)
    bench.submit("a")
    with pytest.raises(QueueFull):
        bench.submit("b")
    assert bench.heard.answers == []


async def test_a_model_that_fails_fails_all_requests_of_the_batch(make: Make) -> None:
    bench = await make().with_workers(1)
    bench.submit("a", "b")
    await settle()
    await bench.workers[0].fail("out of luck")
    for answer in bench.heard.by_id.values():
        assert isinstance(answer, ModelFailed) and str(answer) == "out of luck"
    assert bench.statistics.failures[FailureReason.BACKEND] == 2
    bench.submit("c")
    await settle()
    await bench.workers[0].answer()
    assert bench.values()["c"] == [99]


async def test_an_answer_that_can_not_be_encoded_is_the_requests_own_error(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> bytes:
        raise InvalidRequest("class result not available")

    def break_down(*_: object) -> bytes:
        raise KeyError("a bug")

    bench = await make().with_workers(1)
    bench.submit("a")
    bench.submit("b", encode=refuse)
    bench.submit("c", encode=break_down)
    bench.submit("d")
    await settle()
    await bench.workers[0].answer()
    answers = bench.heard.by_id
    assert isinstance(answers["b"], InvalidRequest)
    assert isinstance(answers["c"], InternalError)
    assert "KeyError" in caplog.text
    assert (bench.values()["a"], bench.values()["d"]) == ([97], [100])
    bench.submit(*"efg")
    await settle()
    await bench.workers[0].answer()
    assert len(bench.heard.by_id) == 7


# ── cancelling ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_cancelled_request_never_runs(make: Make) -> None:
    bench = make()
    bench.submit("a", "b", "c")
    requests = {"b": bench.last}
    bench.last.cancel()
    bench.last.cancel()
    await bench.with_workers(1)
    await settle()
    assert bench.running == [["a", "b"]]
    await bench.workers[0].answer()
    assert bench.values() == {"c": "Unavailable", "a": [97], "b": [98]}
    assert bench.statistics.failures[FailureReason.CANCELED] == 1
    assert requests["b"].done


async def test_cancelling_what_runs_disturbs_nobody(make: Make) -> None:
    bench = await make().with_workers(1)
    bench.submit("a", "b")
    await settle()
    bench.last.cancel()
    await bench.workers[0].answer()
    assert bench.values() == {"a": [97], "b": [98]}
    assert bench.statistics.failures[FailureReason.CANCELED] == 0


# ── crashes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "FIRST_BACKOFF_S", 0.0)


async def test_after_a_crash_each_request_runs_again_alone(make: Make) -> None:
    bench = await make().with_workers(1)
    bench.submit("a", "b")
    await settle()
    await bench.workers[0].crash()
    assert bench.started == [0]
    assert bench.changes == 2
    assert bench.workers[1].ids == [["a"]]
    await bench.workers[1].answer()
    assert bench.workers[1].ids == [["b"]]
    await bench.workers[1].answer()
    assert bench.values() == {"a": [97], "b": [98]}
    assert bench.statistics.worker_restarts == 1
    assert sum(bench.statistics.failures.values()) == 0


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("merge", [True, False])
async def test_the_request_that_kills_is_refused_and_its_mates_are_answered(
    make: Make, merge: bool
) -> None:
    bench = await make(merge=merge, max_rows=1 if not merge else 8).with_workers(1)
    bench.submit("a", "killer", "b", "c")
    for _ in range(12):
        await settle()
        worker = bench.workers[-1]
        if not worker.ids:
            continue
        if "killer" in worker.ids[0]:
            await worker.crash("killed by SIGSEGV")
        else:
            await worker.answer()
    killed = bench.heard.by_id["killer"]
    assert isinstance(killed, WorkerCrashed)
    assert str(killed) == "the worker process ended while it ran this request: killed by SIGSEGV"
    assert bench.values() == {"killer": "WorkerCrashed", "a": [97], "b": [98], "c": [99]}
    assert len(bench.workers) == 3
    assert bench.statistics.failures[FailureReason.BACKEND] == 1


async def test_a_batch_that_had_not_begun_is_not_blamed(make: Make) -> None:
    bench = await make(merge=False).with_workers(1)
    bench.submit("a", "b")
    await settle()
    assert bench.running == [["a"], ["b"]]
    second = bench.last
    await bench.workers[0].crash()
    assert second.attempts == 0
    await bench.workers[1].answer()
    await bench.workers[1].answer()
    assert bench.values() == {"a": [97], "b": [98]}


async def test_repeated_requests_do_not_starve_behind_new_ones(make: Make) -> None:
    bench = await make(max_rows=2).with_workers(1)
    bench.submit("a", "b")
    await settle()
    bench.submit(*"cdefgh")
    await bench.workers[0].crash()
    order = []
    while bench.workers[1].ids:
        order += await bench.workers[1].answer()
    assert order[:2] == ["a", "b"]
    assert sorted(order) == list("abcdefgh")


async def test_other_instances_take_over(make: Make) -> None:
    bench = await make(merge=False).with_workers(2)
    bench.submit("a", "b")
    await settle()
    bench.start_errors = [LoadFailed("not now")] * 1000
    await bench.workers[0].crash()
    assert bench.pool.ready and bench.pool.instances == 1
    await bench.workers[1].answer()
    await bench.workers[1].answer()
    assert bench.values() == {"a": [97], "b": [98]}


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("error", [LoadFailed("not yet"), OSError("too many files")])
async def test_a_worker_that_can_not_be_started_is_tried_again(
    make: Make, error: Exception
) -> None:
    bench = await make().with_workers(1)
    bench.start_errors = [error, LoadFailed("still not")]
    await bench.workers[0].crash()
    bench.submit("a")
    for _ in range(3):
        await settle()
    assert bench.started == [0, 0, 0]
    assert bench.pool.last_crash == "still not"
    assert bench.running == [["a"]]


async def test_an_instance_that_ended_before_it_was_added(make: Make) -> None:
    bench = make()
    instance = await bench._new()
    await bench.workers[0].crash("killed by SIGKILL")
    bench.pool.add(instance, 0)
    assert (bench.pool.ready, bench.started) == (False, [])
    assert bench.pool.last_crash == "a worker ended: killed by SIGKILL"
    await settle()
    assert bench.pool.ready


# ── preserve_ordering ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_answers_leave_in_the_order_of_arrival(make: Make) -> None:
    bench = await make(preserve_ordering=True, merge=False).with_workers(2)
    bench.submit("a", "b", "c", "d")
    await settle()
    assert [worker.ids for worker in bench.workers] == [[["a"], ["c"]], [["b"], ["d"]]]
    await bench.workers[1].answer()
    await bench.workers[1].fail("no")
    assert bench.heard.answers == []
    await bench.workers[0].answer()
    await bench.workers[0].answer()
    assert list(bench.values().items()) == [
        ("a", [97]),
        ("b", [98]),
        ("c", [99]),
        ("d", "ModelFailed"),
    ]


async def test_a_cancelled_request_holds_up_nobody(make: Make) -> None:
    bench = make(preserve_ordering=True, merge=False)
    bench.submit("a")
    first = bench.last
    bench.submit("b")
    first.cancel()
    await bench.with_workers(1)
    await settle()
    await bench.workers[0].answer()
    assert bench.values() == {"a": "Unavailable", "b": [98]}


async def test_a_refused_request_is_not_waited_for(make: Make) -> None:
    bench = make(preserve_ordering=True, max_queue_requests=1)
    bench.submit("a")
    with pytest.raises(QueueFull):
        bench.submit("b")
    await bench.with_workers(1)
    await settle()
    await bench.workers[0].answer()
    bench.submit("c")
    await settle()
    await bench.workers[0].answer()
    assert bench.values() == {"a": [97], "c": [99]}


async def test_order_holds_over_a_crash(make: Make) -> None:
    bench = await make(preserve_ordering=True, merge=False).with_workers(2)
    bench.submit("a", "b")
    await settle()
    await bench.workers[1].answer()
    await bench.workers[0].crash()
    assert bench.heard.answers == []
    await settle()
    worker = next(worker for worker in bench.workers if worker.ids)
    await worker.answer()
    assert list(bench.values().items()) == [("a", [97]), ("b", [98])]


# ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_closing_answers_what_is_here_and_refuses_the_rest(make: Make) -> None:
    bench = await make(max_rows=1).with_workers(1)
    bench.submit(*"abcd")
    await settle()
    closing = asyncio.ensure_future(bench.pool.close(60))
    await settle()
    with pytest.raises(Unavailable, match="model 'm' is being unloaded"):
        bench.submit("late")
    for _ in range(4):
        assert not closing.done()
        await bench.workers[0].answer()
    await closing
    assert bench.values() == {"a": [97], "b": [98], "c": [99], "d": [100]}
    assert bench.workers[0].process.exited.done()
    assert not bench.pool.ready


async def test_what_is_not_done_in_time_is_told_so(make: Make) -> None:
    bench = await make(max_rows=1).with_workers(1)
    bench.submit(*"abcd")
    await settle()
    await bench.pool.close(0)
    assert set(bench.values().values()) == {"Unavailable"}
    assert len(bench.heard.answers) == 4
    await settle()
    assert bench.started == []


async def test_closing_waits_no_longer_than_for_the_last_request(make: Make) -> None:
    bench = make()
    bench.submit("a")
    closing = asyncio.ensure_future(bench.pool.close(60))
    await settle()
    bench.last.cancel()
    await asyncio.wait_for(closing, 5)


async def test_a_worker_that_ends_while_the_pool_drains_loses_nothing(make: Make) -> None:
    bench = await make().with_workers(1)
    bench.submit("a", "b")
    await settle()
    closing = asyncio.ensure_future(bench.pool.close(60))
    await settle()
    await bench.workers[0].crash()
    await bench.workers[1].answer()
    await bench.workers[1].answer()
    await asyncio.wait_for(closing, 5)
    assert bench.values() == {"a": [97], "b": [98]}


async def test_an_idle_pool_closes_at_once(make: Make) -> None:
    bench = await make().with_workers(2)
    await asyncio.wait_for(bench.pool.close(60), 5)
    assert len([w for w in bench.workers if w.process.exited.done()]) == 2


async def test_rows_of_one_request_stay_together(make: Make) -> None:
    bench = await make(max_rows=4).with_workers(1)
    for name, values in (("a", (1, 2, 3)), ("b", (4, 5)), ("c", (6,))):
        bench.submit(name, **rows(values))
    await settle()
    assert bench.running == [["a"]]
    await bench.workers[0].answer()
    assert bench.running == [["b", "c"]]
    await bench.workers[0].answer(lambda x: x * 10)
    assert bench.values() == {"a": [1, 2, 3], "b": [40, 50], "c": [60]}
