"""Requests that are the same and under way together: one run, many clients, each with its own terms."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cache_bench import CacheBench
from fake_workers import settle, until
from penstock.errors import DeadlineExceeded, QueueFull
from penstock.scheduling.culprits import MAX_ATTEMPTS
from penstock.scheduling.refusals import Refusal
from penstock.telemetry.statistics import FailureReason

Make = Callable[..., CacheBench]

pytestmark = pytest.mark.extension("response_cache")

SHORT_US = 20_000
LONG_US = 60_000_000


async def test_one_run_answers_all(make_cached: Make) -> None:
    bench = await make_cached().with_workers(2)
    for name in "abc":
        bench.submit(name)
    await settle()
    bench.submit("d")
    await settle()
    assert bench.running == [["a"]]
    await bench.run()
    await settle()
    assert bench.answers == {"a": [1], "b": [1], "c": [1], "d": [1]}
    statistics = bench.bench.statistics
    assert (statistics.inference_count, statistics.execution_count) == (1, 1)
    assert (bench.counts.misses, bench.counts.hits, bench.counts.coalesced) == (1, 3, 3)
    assert bench.books == (4, 0)
    assert bench.room.requests == bench.room.nbytes == 0


@pytest.mark.parametrize("running", [False, True])
async def test_the_leaders_cancellation_fails_nobody_else(make_cached: Make, running: bool) -> None:
    bench = make_cached()
    if running:
        await bench.with_workers(1)
    bench.submit("leads", timeout_us=LONG_US)
    bench.submit("waits")
    bench.submit("waits too")
    await settle()
    bench.requests["leads"].cancel()
    if not running:
        await bench.with_workers(1)
        await settle()
        assert bench.running == [["waits"]]
    await bench.run()
    await settle()
    assert bench.answers == {"leads": "Cancelled", "waits": [1], "waits too": [1]}
    assert bench.bench.statistics.execution_count == 1
    assert bench.books == (2, 1)
    assert bench.bench.statistics.failures[FailureReason.CANCELED] == 1
    assert bench.counts.entries == 1


@pytest.mark.parametrize("running", [False, True])
async def test_the_leaders_deadline_is_not_the_others(make_cached: Make, running: bool) -> None:
    bench = make_cached()
    if running:
        await bench.with_workers(1)
    bench.submit("leads", timeout_us=SHORT_US)
    bench.submit("has time", timeout_us=LONG_US)
    bench.submit("waits for ever")
    await until(lambda: "leads" in bench.answers)
    assert bench.answers == {"leads": "DeadlineExceeded"}
    if not running:
        await bench.with_workers(1)
    await settle()
    # it is not run twice, though the one that it was run for is gone
    assert len(bench.running) == 1
    await bench.run()
    await settle()
    assert bench.answers == {
        "leads": "DeadlineExceeded",
        "has time": [1],
        "waits for ever": [1],
    }
    assert bench.bench.statistics.execution_count == 1
    assert bench.books == (2, 1)
    refused = bench.bench.pool.scheduler.refused
    assert {reason: n for reason, n in refused.items() if n} == {Refusal.EXPIRED: 1}


async def test_each_waits_for_as_long_as_it_may(make_cached: Make) -> None:
    bench = await make_cached().with_workers(1)
    bench.submit("leads")
    bench.submit("short", timeout_us=SHORT_US)
    await until(lambda: "short" in bench.answers)
    assert bench.answers == {"short": "DeadlineExceeded"}
    await bench.run()
    await settle()
    assert bench.answers["leads"] == [1]
    assert bench.books == (1, 1)


@pytest.mark.parametrize("running", [False, True])
async def test_when_nobody_is_left_nothing_is(make_cached: Make, running: bool) -> None:
    bench = make_cached()
    if running:
        await bench.with_workers(1)
    bench.submit("a", timeout_us=SHORT_US)
    bench.submit("b")
    await settle()
    bench.requests["b"].cancel()
    await until(lambda: "a" in bench.answers)
    assert bench.answers == {"a": "DeadlineExceeded", "b": "Cancelled"}
    assert bench.pool.explain()["response_cache"]["runs"] == 0
    if running:
        await bench.run()
    assert bench.bench.pool.explain()["queue"]["requests"] == 0
    assert bench.books == (0, 2)
    assert bench.counts.entries == 0
    # and the pool does not wait for it either
    await bench.pool.close(30)


async def test_an_error_of_the_model_is_everybodys(make_cached: Make) -> None:
    bench = await make_cached().with_workers(1)
    bench.submit("leads")
    bench.submit("waits", timeout_us=LONG_US)
    await settle()
    await bench.bench.workers[0].fail("always so")
    assert bench.answers == {"leads": "ModelFailed", "waits": "ModelFailed"}
    assert bench.running == []
    assert bench.bench.statistics.failures[FailureReason.BACKEND] == 2


async def test_a_request_that_kills_workers_is_not_multiplied(make_cached: Make) -> None:
    bench = await make_cached().with_workers(5)
    for name in ("leads", "waits", "waits too"):
        bench.submit(name)
    await settle()
    deaths = 0
    while any(bench.running):
        victim = next(worker for worker in bench.bench.workers if worker.batches)
        await victim.crash()
        deaths += 1
    assert deaths == MAX_ATTEMPTS, "as of one"
    assert set(bench.answers.values()) == {"WorkerCrashed"}
    assert bench.books == (0, 3)


async def test_one_that_is_more_urgent_hurries_the_run(make_cached: Make) -> None:
    bench = make_cached(max_rows=1, merge=False)
    bench.submit("other", 2)
    bench.submit("same", 1, priority=2)
    bench.submit("same, but urgent", 1, timeout_us=LONG_US)
    await bench.with_workers(1)
    await settle()
    order = []
    while any(bench.running):
        order += [ids for ids in bench.running if ids]
        await bench.run()
    await settle()
    assert order[0] == ["same, but urgent"]
    assert bench.answers == {"other": [2], "same": [1], "same, but urgent": [1]}
    assert bench.books == (3, 0)
    assert bench.bench.statistics.execution_count == 2


async def test_the_queues_order_is_kept_when_the_leader_goes(make_cached: Make) -> None:
    bench = make_cached(max_rows=1, merge=False)
    bench.submit("leads", 1)
    bench.submit("came later", 2)
    bench.submit("waits", 1)
    bench.requests["leads"].cancel()
    await bench.with_workers(1)
    await settle()
    assert bench.running[0] == ["waits"]


async def test_who_cannot_be_on_time_makes_room_for_the_others(make_cached: Make) -> None:
    bench = await make_cached(max_rows=1, merge=False).with_workers(1)
    # the model takes some milliseconds
    bench.submit("teaches", 5)
    await settle()
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 0.01)
    await bench.run()
    bench.submit("ahead", 6)
    await settle()
    bench.submit("leads", 7)
    bench.submit("can't make it", 7, timeout_us=8_000)
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 0.004)
    await bench.run()
    await until(lambda: "can't make it" in bench.answers)
    await until(lambda: any(bench.running))
    await bench.run()
    await settle()
    assert bench.answers["leads"] == [7]
    assert bench.answers["can't make it"] == "DeadlineExceeded"
    assert bench.books == (3, 1)


async def test_what_is_refused_leaves_nothing(make_cached: Make) -> None:
    bench = make_cached(max_queue_requests=1, max_waiting=1)
    bench.submit("a", 1)
    with pytest.raises(QueueFull):
        bench.submit("b", 2)
    bench.submit("waits", 1)
    with pytest.raises(QueueFull, match="Exceeds maximum queue size"):
        bench.submit("one too many", 1)
    assert bench.books == (0, 2)
    assert bench.pool.explain()["response_cache"]["runs"] == 1
    await bench.with_workers(1)
    await settle()
    await bench.run()
    await settle()
    assert bench.answers == {"a": [1], "waits": [1]}


async def test_what_comes_too_late_is_refused_at_once(make_cached: Make) -> None:
    bench = await make_cached().with_workers(1)
    with pytest.raises(DeadlineExceeded):
        bench.submit("late", timeout_us=-1)
    assert bench.books == (0, 1)
    assert bench.pool.explain()["response_cache"]["runs"] == 0


async def test_different_tenants_are_not_joined(make_cached: Make) -> None:
    bench = await make_cached().with_workers(1)
    bench.submit("a", tenant="x")
    bench.submit("b", tenant="y")
    await settle()
    assert bench.running == [["a", "b"]]
    await bench.run()
