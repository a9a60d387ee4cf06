"""A pool's worker ends: what it had runs again, and only what kills is refused."""

from __future__ import annotations

import pytest

from fake_workers import settle, until
from penstock.errors import LoadFailed, Unavailable, WorkerCrashed
from penstock.repository import restarts
from penstock.scheduling.refusals import Refusal
from penstock.telemetry.statistics import FailureReason
from pool_bench import Bench, Make


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "FIRST_BACKOFF_S", 0.0)


async def test_after_a_crash_the_batch_runs_again_as_it_was(make_pool: Make) -> None:
    bench = await make_pool().with_workers(1)
    bench.submit("a", "b")
    await settle()
    bench.submit("stranger")
    await bench.workers[0].crash()
    assert bench.started == [0]
    assert bench.changes == 2
    assert bench.workers[1].ids == [["a", "b"]]
    await bench.workers[1].answer()
    assert bench.workers[1].ids == [["stranger"]]
    await bench.workers[1].answer()
    assert bench.values() == {"a": [97], "b": [98], "stranger": [114]}
    assert bench.statistics.worker_restarts == 1
    assert sum(bench.statistics.failures.values()) == 0


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize(("merge", "workers"), [(True, 4), (False, 4)])
async def test_the_request_that_kills_is_refused_and_its_mates_are_answered(
    make_pool: Make, merge: bool, workers: int
) -> None:
    bench = await make_pool(merge=merge, max_rows=1 if not merge else 8).with_workers(1)
    bench.submit("a", "killer", "b", "c")
    await run_with_killer(bench)
    killed = bench.heard.by_id["killer"]
    assert isinstance(killed, WorkerCrashed)
    assert str(killed) == "the worker process ended while it ran this request: killed by SIGSEGV"
    assert bench.values() == {"killer": "WorkerCrashed", "a": [97], "b": [98], "c": [99]}
    assert len(bench.workers) == workers
    assert bench.statistics.failures[FailureReason.BACKEND] == 1


@pytest.mark.usefixtures("no_backoff")
async def test_a_request_like_the_one_that_killed_is_refused_at_once(make_pool: Make) -> None:
    bench = await make_pool().with_workers(1)
    bench.submit("killer")
    await run_with_killer(bench)
    with pytest.raises(WorkerCrashed, match="refused, for a request like this was run before"):
        bench.submit("another")
    assert bench.statistics.refused[Refusal.QUARANTINED] == 1
    assert bench.statistics.failures[FailureReason.REJECTED] == 1
    bench.submit("b")
    await settle()
    await bench.workers[-1].answer()
    assert bench.values() == {"killer": "WorkerCrashed", "b": [98]}


async def run_with_killer(bench: Bench) -> None:
    """Answer batches, but for those with `killer`, which end their worker."""
    for _ in range(16):
        await settle()
        worker = bench.workers[-1]
        if worker.ids and "killer" in worker.ids[0]:
            await worker.crash("killed by SIGSEGV")
        elif worker.ids:
            await worker.answer()


async def test_a_worker_that_hangs_is_ended_and_its_batch_divided(make_pool: Make) -> None:
    bench = await make_pool(execution_timeout_us=20_000).with_workers(1)
    bench.submit("a", "b")
    await settle()
    await until(lambda: bench.workers[-1].ids == [["a"]])
    assert bench.workers[0].process.exited.done()
    assert "busy with one batch for longer than 0.02 s" in bench.pool.last_crash
    await bench.workers[1].answer()
    await until(lambda: "b" in bench.heard.by_id)
    assert isinstance(bench.heard.by_id["b"], WorkerCrashed)
    await until(lambda: bench.pool.ready)


async def test_a_batch_that_had_not_begun_is_not_blamed(make_pool: Make) -> None:
    bench = await make_pool(merge=False).with_workers(1)
    bench.submit("a", "b")
    await settle()
    assert bench.running == [["a"], ["b"]]
    second = bench.last
    await bench.workers[0].crash()
    assert second.attempts == 0
    await bench.workers[1].answer()
    await bench.workers[1].answer()
    assert bench.values() == {"a": [97], "b": [98]}


async def test_repeated_requests_do_not_starve_behind_new_ones(make_pool: Make) -> None:
    bench = await make_pool(max_rows=2).with_workers(1)
    bench.submit("a", "b")
    await settle()
    bench.submit(*"cdefgh")
    await bench.workers[0].crash()
    order = []
    while bench.workers[1].ids:
        order += await bench.workers[1].answer()
    assert order[:2] == ["a", "b"]
    assert sorted(order) == list("abcdefgh")


async def test_other_instances_take_over(make_pool: Make) -> None:
    bench = await make_pool(merge=False).with_workers(2)
    bench.submit("a", "b")
    await settle()
    bench.start_errors = [LoadFailed("not now")] * 1000
    await bench.workers[0].crash()
    assert bench.pool.ready and len(bench.pool.instances) == 1
    await bench.workers[1].answer()
    await bench.workers[1].answer()
    assert bench.values() == {"a": [97], "b": [98]}


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("error", [LoadFailed("not yet"), OSError("too many files")])
async def test_a_worker_that_can_not_be_started_is_tried_again(
    make_pool: Make, error: Exception
) -> None:
    bench = await make_pool().with_workers(1)
    bench.start_errors = [error, LoadFailed("still not")]
    await bench.workers[0].crash()
    bench.submit("a")
    for _ in range(3):
        await settle()
    assert bench.started == [0, 0, 0]
    assert bench.pool.last_crash == "still not"
    assert bench.running == [["a"]]


async def test_nobody_waits_for_a_worker_that_does_not_come(make_pool: Make) -> None:
    bench = await make_pool(merge=False).with_workers(1)
    bench.submit("a", "b", "c")
    await settle()
    bench.start_errors = [LoadFailed("no more memory")] * 1000
    before = bench.changes
    await bench.workers[0].crash()
    assert not bench.pool.accepts
    assert bench.changes == before + 2
    for answer in bench.heard.by_id.values():
        assert isinstance(answer, Unavailable)
        assert str(answer) == "no worker can be started: no more memory"
    assert len(bench.heard.answers) == 3
    assert bench.statistics.pending == 0


async def test_an_instance_that_ended_before_it_was_added(make_pool: Make) -> None:
    bench = make_pool()
    instance = await bench.new_worker()
    await bench.workers[0].crash("killed by SIGKILL")
    bench.pool.add(instance, 0)
    assert (bench.pool.ready, bench.started) == (False, [])
    assert bench.pool.last_crash == "a worker ended: killed by SIGKILL"
    await settle()
    assert bench.pool.ready
