"""A pool over instances whose workers the test plays: what is batched, repeated, answered, and in which order."""

from __future__ import annotations

import asyncio
import os
import time

import numpy as np
import pytest

from fake_workers import rows, settle, until
from penstock.errors import (
    InternalError,
    InvalidRequest,
    ModelFailed,
    QueueFull,
    Unavailable,
)
from penstock.scheduling.queue_policy import QueuePolicies, QueuePolicy
from penstock.scheduling.refusals import Refusal
from penstock.telemetry.statistics import FailureReason
from penstock.types import RegionRef
from penstock.workers.client_regions import Region, RegionInput
from pool_bench import Make
from region_files import region_file


async def test_what_comes_together_goes_together(make_pool: Make) -> None:
    bench = await make_pool().with_workers(1)
    bench.submit("a", "b", "c")
    assert bench.running == []
    await settle()
    assert bench.running == [["a", "b", "c"]]
    await bench.workers[0].answer()
    assert bench.values() == {"a": [97], "b": [98], "c": [99]}
    assert (bench.statistics.execution_count, bench.statistics.inference_count) == (1, 3)
    assert bench.statistics.pending == bench.statistics.queued_bytes == 0


@pytest.mark.extension("system_shared_memory")
async def test_a_request_whose_shared_memory_is_gone_fails_alone(make_pool: Make) -> None:
    bench = await make_pool().with_workers(1)
    with region_file(np.full(1, 97, np.float32).tobytes()) as (key, path):
        there = RegionInput(Region("r", key, 0, 4), RegionRef("r", 0, 4))
        bench.submit("a", "b", "c")
        bench.last.buffers = [there]
        await settle()
        await bench.workers[0].answer()
        assert bench.values() == {"a": [97], "b": [98], "c": [97]}
        bench.submit("d", "e")
        bench.last.buffers = [there]
        os.truncate(path, 3)
        await settle()
        assert bench.running == [["d"]]
        await bench.workers[0].answer()
        bench.submit("f")
        bench.last.buffers = [there]
        await settle()
        assert bench.running == []
        bench.submit("g")
        await settle()
        await bench.workers[0].answer()
        # when nothing is left to be answered, an unload does not wait
        bench.submit("h")
        bench.last.buffers = [there]
        await bench.pool.close(30)
    gone = {name: "InvalidRequest" for name in "efh"}
    assert {n: v for n, v in bench.values().items() if n in "defgh"} == {
        **gone,
        "d": [100],
        "g": [103],
    }
    assert bench.statistics.failures[FailureReason.OTHER] == 3


async def test_requests_wait_for_the_first_instance(make_pool: Make) -> None:
    bench = make_pool()
    bench.submit("a")
    await settle()
    assert not bench.pool.ready
    assert (bench.statistics.pending, bench.statistics.queued_bytes) == (1, 4)
    await bench.with_workers(1)
    await settle()
    assert bench.pool.ready
    assert bench.running == [["a"]]


async def test_a_busy_worker_gets_only_full_batches(make_pool: Make) -> None:
    bench = await make_pool(max_rows=2).with_workers(1)
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


async def test_idle_instances_come_first(make_pool: Make) -> None:
    bench = await make_pool(merge=False).with_workers(2)
    bench.submit("a", "b", "c")
    await settle()
    assert [worker.ids for worker in bench.workers] == [[["a"], ["c"]], [["b"]]]


async def test_a_delay_is_waited_for(make_pool: Make) -> None:
    bench = await make_pool(max_delay_us=300_000).with_workers(1)
    bench.submit("a")
    await settle()
    assert bench.running == []
    await until(lambda: bool(bench.running))
    assert time.monotonic_ns() - bench.last.arrived_ns >= 300_000_000
    await bench.workers[0].answer()
    assert bench.values() == {"a": [97]}


async def test_a_full_queue_refuses(make_pool: Make) -> None:
    bench = make_pool(max_queue_requests=1)
    bench.submit("a")
    with pytest.raises(QueueFull):
        bench.submit("b")
    assert bench.heard.answers == []


async def test_a_model_that_fails_fails_all_requests_of_the_batch(make_pool: Make) -> None:
    bench = await make_pool().with_workers(1)
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
    make_pool: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> bytes:
        raise InvalidRequest("class result not available")

    def break_down(*_: object) -> bytes:
        raise KeyError("a bug")

    bench = await make_pool().with_workers(1)
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


async def test_a_cancelled_request_never_runs(make_pool: Make) -> None:
    bench = make_pool()
    bench.submit("a", "b", "c")
    requests = {"b": bench.last}
    bench.last.cancel()
    bench.last.cancel()
    await bench.with_workers(1)
    await settle()
    assert bench.running == [["a", "b"]]
    await bench.workers[0].answer()
    assert bench.values() == {"c": "Cancelled", "a": [97], "b": [98]}
    assert bench.statistics.failures[FailureReason.CANCELED] == 1
    assert requests["b"].done


async def test_cancelling_what_runs_disturbs_nobody(make_pool: Make) -> None:
    bench = await make_pool().with_workers(1)
    bench.submit("a", "b")
    await settle()
    bench.last.cancel()
    await bench.workers[0].answer()
    assert bench.values() == {"a": [97], "b": "Cancelled"}
    assert bench.statistics.failures[FailureReason.CANCELED] == 1


# ── preserve_ordering ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_answers_leave_in_the_order_of_arrival(make_pool: Make) -> None:
    bench = await make_pool(preserve_ordering=True, merge=False).with_workers(2)
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


async def test_a_cancelled_request_holds_up_nobody(make_pool: Make) -> None:
    bench = make_pool(preserve_ordering=True, merge=False)
    bench.submit("a")
    first = bench.last
    bench.submit("b")
    first.cancel()
    await bench.with_workers(1)
    await settle()
    await bench.workers[0].answer()
    assert bench.values() == {"a": "Cancelled", "b": [98]}


async def test_a_refused_request_is_not_waited_for(make_pool: Make) -> None:
    bench = make_pool(preserve_ordering=True, max_queue_requests=1)
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


async def test_order_holds_over_a_crash(make_pool: Make) -> None:
    bench = await make_pool(preserve_ordering=True, merge=False).with_workers(2)
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


async def test_closing_answers_what_is_here_and_refuses_the_rest(make_pool: Make) -> None:
    bench = await make_pool(max_rows=1).with_workers(1)
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


async def test_what_is_not_done_in_time_is_told_so(make_pool: Make) -> None:
    bench = await make_pool(max_rows=1).with_workers(1)
    bench.submit(*"abcd")
    await settle()
    await bench.pool.close(0)
    assert set(bench.values().values()) == {"Unavailable"}
    assert len(bench.heard.answers) == 4
    await settle()
    assert bench.started == []


async def test_closing_waits_no_longer_than_for_the_last_request(make_pool: Make) -> None:
    bench = make_pool()
    bench.submit("a")
    closing = asyncio.ensure_future(bench.pool.close(60))
    await settle()
    bench.last.cancel()
    await asyncio.wait_for(closing, 60)


async def test_a_worker_that_ends_while_the_pool_drains_loses_nothing(make_pool: Make) -> None:
    bench = await make_pool().with_workers(1)
    bench.submit("a", "b")
    await settle()
    closing = asyncio.ensure_future(bench.pool.close(60))
    await settle()
    await bench.workers[0].crash()
    await bench.workers[1].answer()
    await asyncio.wait_for(closing, 60)
    assert bench.values() == {"a": [97], "b": [98]}


async def test_an_idle_pool_closes_at_once(make_pool: Make) -> None:
    bench = await make_pool().with_workers(2)
    await asyncio.wait_for(bench.pool.close(60), 60)
    assert len([w for w in bench.workers if w.process.exited.done()]) == 2


async def test_rows_of_one_request_stay_together(make_pool: Make) -> None:
    bench = await make_pool(max_rows=4).with_workers(1)
    for name, values in (("a", (1, 2, 3)), ("b", (4, 5)), ("c", (6,))):
        bench.submit(name, inputs=rows(values))
    await settle()
    assert bench.running == [["a"]]
    await bench.workers[0].answer()
    assert bench.running == [["b", "c"]]
    await bench.workers[0].answer(lambda x: x * 10)
    assert bench.values() == {"a": [1, 2, 3], "b": [40, 50], "c": [60]}


# ── deadlines ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("clients", "kind"), [(True, "DeadlineExceeded"), (False, "Unavailable")])
async def test_expiry_is_told_at_its_time_whether_the_request_waits_or_runs(
    make_pool: Make, clients: bool, kind: str
) -> None:
    bench = await make_pool(max_rows=1).with_workers(1)
    bench.submit("runs", "ahead", "waits", timeout_us=20_000, deadline_is_clients=clients)
    bench.submit("patient")
    began_ns = time.monotonic_ns()
    await until(lambda: len(bench.heard.answers) == 3)
    assert (time.monotonic_ns() - began_ns) / 1e6 + 1 >= 20
    assert bench.values() == dict.fromkeys(("runs", "ahead", "waits"), kind)
    assert bench.statistics.refused[Refusal.EXPIRED] == 3
    assert bench.statistics.failures[FailureReason.REJECTED] == 3
    while "patient" not in bench.heard.by_id:
        await bench.workers[0].answer()
    assert bench.values()["patient"] == [ord("t")]
    assert bench.statistics.request_ns.count == 1


async def test_expiry_does_not_wait_for_its_turn_in_the_order(make_pool: Make) -> None:
    bench = await make_pool(preserve_ordering=True, merge=False).with_workers(1)
    bench.submit("first")
    bench.submit("late", timeout_us=5_000)
    bench.submit("last")
    await settle()
    await until(lambda: "late" in bench.heard.by_id)
    while len(bench.heard.answers) < 3:
        await bench.workers[0].answer()
    assert bench.values() == {"first": [116], "late": "DeadlineExceeded", "last": [116]}


@pytest.mark.extension("schedule_policy")
async def test_a_wait_is_over_when_its_time_is_and_not_when_a_batch_ends(make_pool: Make) -> None:
    policies = QueuePolicies(QueuePolicy(timeout_us=20_000))
    bench = await make_pool(max_rows=1, levels=policies).with_workers(1)
    bench.submit("a", "b")
    await settle()
    assert bench.running == [["a"], ["b"]]
    began = time.monotonic()
    bench.submit("c")
    await until(lambda: "c" in bench.heard.by_id)
    assert time.monotonic() - began >= 0.02
    # the others have begun, and are not bound by it
    assert bench.values() == {"c": "Unavailable"}
    assert bench.statistics.failures[FailureReason.REJECTED] == 1
    assert bench.statistics.refused[Refusal.QUEUE_TIMEOUT] == 1
    assert bench.statistics.pending == bench.statistics.queued_bytes == 0
    for _ in range(2):
        await bench.workers[0].answer()
    assert bench.values() == {"a": [97], "b": [98], "c": "Unavailable"}


@pytest.mark.extension("schedule_policy")
async def test_the_late_go_behind_the_others(make_pool: Make) -> None:
    policies = QueuePolicies(QueuePolicy(timeout_us=1_000_000, delays=True))
    bench = await make_pool(max_rows=1, levels=policies).with_workers(1)
    bench.submit("a", "b")
    await settle()
    late = bench.pool.scheduler.batcher
    bench.submit("c")
    late.end_waits(time.monotonic_ns() / 1000 + 2_000_000)
    bench.submit("d")
    assert bench.statistics.delayed() == 1
    for _ in range(4):
        await bench.workers[0].answer()
    assert [name for name, _ in bench.heard.answers] == ["a", "b", "d", "c"]
