"""The pool of a stateful model: which worker gets what, and what clients hear when one is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fake_workers import settle, until
from penstock.errors import InvalidRequest, QueueFull, Unavailable
from penstock.repository import restarts
from penstock.scheduling.sequence_backlog import Ending
from penstock.telemetry.statistics import FailureReason
from penstock.workers.worker_commands import ExecuteSequences
from sequence_bench import SequenceBench

Make = Callable[..., SequenceBench]
LOST = "sequence {} of model 'm' was lost: the worker ended: killed by SIGKILL; start it again"


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """`make(**policy)` gives a bench without workers."""
    benches: list[SequenceBench] = []

    def one(**policy: Any) -> SequenceBench:
        benches.append(SequenceBench(**policy))
        return benches[-1]

    yield one
    for bench in benches:
        await bench.end()


def errors(bench: SequenceBench) -> dict[str, str]:
    """Name → text, of all that failed."""
    return {
        name: str(answer) for name, answer in bench.heard.answers if isinstance(answer, Exception)
    }


async def test_a_worker_is_told_each_requests_place(make: Make) -> None:
    bench = await make().with_workers(1)
    bench.step("1<", "2<>")
    await settle()
    (command,) = bench.workers[0].batches
    assert isinstance(command, ExecuteSequences)
    assert [(s.slot, s.start, s.end, s.id) for s in command.steps] == [
        (0, True, False, 1),
        (1, True, True, 2),
    ]
    await bench.workers[0].answer()
    assert bench.values() == {"1<": [1.0], "2<>": [2.0]}


async def test_a_sequence_stays_with_its_worker(make: Make) -> None:
    bench = await make(slots=1).with_workers(2)
    bench.step("1<", "2<")
    await settle()
    assert [worker.ids for worker in bench.workers] == [[["1<"]], [["2<"]]]
    await bench.workers[1].answer()
    bench.step("1>", "2:b")
    await settle()
    assert [worker.ids for worker in bench.workers] == [[["1<"]], [["2:b"]]]
    await bench.workers[0].answer()
    assert bench.workers[0].ids == [["1>"]]


async def test_a_crash_ends_the_workers_sequences_and_no_others(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "FIRST_BACKOFF_S", 0.0)
    bench = await make(slots=2).with_workers(2)
    bench.step("1<", "2<", "3<")
    await settle()
    for worker in bench.workers:
        await worker.answer()
    bench.step("1:run", "1:wait", "2:run")
    await settle()
    await bench.workers[0].crash()
    assert errors(bench) == {"1:run": LOST.format(1), "1:wait": LOST.format(1)}
    for name in ("1", "3"):
        with pytest.raises(Unavailable, match=LOST.format(name)):
            bench.step(name)
    await bench.workers[1].answer()
    bench.step("2>", "1<:again")
    await settle()
    assert bench.workers[1].ids == [["2>"]]
    assert bench.workers[2].ids == [["1<:again"]]
    assert bench.statistics.sequences is not None
    assert bench.statistics.sequences.ended[Ending.LOST] == 2
    assert bench.statistics.failures[FailureReason.OTHER] == 2


async def test_what_had_not_begun_runs_on_the_next_worker(make: Make) -> None:
    bench = await make(slots=1).with_workers(1)
    bench.step("1<", "2<", "2")
    await settle()
    await bench.workers[0].crash()
    assert errors(bench) == {"1<": LOST.format(1)}
    await settle()
    assert bench.workers[1].ids == [["2<"]]
    await bench.workers[1].answer()
    assert bench.workers[1].ids == [["2"]]


async def test_a_crash_in_a_row_ends_nothing_twice(make: Make) -> None:
    bench = await make(slots=1).with_workers(1)
    bench.step("1<")
    await settle()
    await bench.workers[0].crash()
    bench.step("1<:b", "1>")
    await settle()
    await bench.workers[1].crash()
    assert errors(bench) == {"1<": LOST.format(1), "1<:b": LOST.format(1), "1>": LOST.format(1)}
    with pytest.raises(InvalidRequest, match="must specify the START flag"):
        bench.step("1")


async def test_a_sequence_ends_when_it_is_idle_and_the_next_one_gets_its_slot(make: Make) -> None:
    bench = await make(slots=1, idle_us=20_000).with_workers(1)
    bench.step("1<", "2<>")
    await settle()
    await bench.workers[0].answer()
    assert bench.workers[0].ids == []
    await until(lambda: bench.workers[0].ids == [["2<>"]])
    with pytest.raises(InvalidRequest, match=r"the one before was idle for longer than 0\.02 s"):
        bench.step("1")
    await bench.workers[0].answer()
    assert bench.sequences.queue.live == 0


async def test_a_cancelled_request_leaves_and_its_sequence_goes_on(make: Make) -> None:
    bench = await make().with_workers(1)
    _, second, _ = bench.step("1<", "1:b", "1>")
    await settle()
    second.cancel()
    await bench.workers[0].answer()
    assert bench.workers[0].ids == [["1>"]]
    await bench.workers[0].answer()
    assert bench.values() == {"1:b": "Cancelled", "1<": [1.0], "1>": [1.0]}


async def test_a_running_request_that_is_cancelled_still_counts_for_its_sequence(
    make: Make,
) -> None:
    bench = await make().with_workers(1)
    (first,) = bench.step("1<")
    await settle()
    first.cancel()
    bench.step("1>")
    await bench.workers[0].answer()
    assert bench.workers[0].ids == [["1>"]]


async def test_a_failed_batch_does_not_end_its_sequences(make: Make) -> None:
    bench = await make().with_workers(1)
    bench.step("1<")
    await settle()
    await bench.workers[0].fail("no")
    bench.step("1>")
    await settle()
    assert bench.workers[0].ids == [["1>"]]
    assert errors(bench) == {"1<": "no"}


async def test_what_can_not_be_sent_fails_and_others_run(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await make().with_workers(1)
    instance = bench.pool.instances[0]
    with monkeypatch.context() as patched:
        patched.setattr(instance, "execute", lambda *_: _raise(Unavailable("no memory")))
        bench.step("1<")
        await settle()
    with pytest.raises(InvalidRequest, match="must specify the START flag"):
        bench.step("1")
    bench.step("2<")
    await settle()
    assert bench.workers[0].ids == [["2<"]]


def _raise(error: Exception) -> None:
    raise error


async def test_more_than_may_wait_are_refused(make: Make) -> None:
    bench = make(slots=1, max_queue_requests=2)
    bench.step("1<", "2<")
    with pytest.raises(QueueFull, match="Exceeds maximum queue size: model 'm' has 2 requests"):
        bench.step("3<")
    await bench.with_workers(1)
    await settle()
    assert bench.workers[0].ids == [["1<"]]


async def test_nobody_waits_for_workers_that_do_not_come(make: Make) -> None:
    bench = await make(slots=1).with_workers(1)
    bench.step("1<", "2<")
    await settle()
    bench.start_errors.append(OSError("no processes left"))
    await bench.workers[0].crash()
    await settle()
    assert errors(bench)["2<"] == "no worker can be started: no processes left"
    assert bench.sequences.queue.live == 0


# ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_unloaded_model_answers_what_is_here_and_does_not_wait_for_more(
    make: Make,
) -> None:
    bench = await make().with_workers(1)
    bench.step("1<")
    await settle()
    closing = asyncio.ensure_future(bench.pool.close(60))
    await settle()
    with pytest.raises(Unavailable, match="model 'm' is being unloaded"):
        bench.step("1")
    await bench.workers[0].answer()
    await closing
    assert bench.values() == {"1<": [1.0]}


async def test_a_replaced_model_lets_its_sequences_end(make: Make) -> None:
    bench = await make().with_workers(1)
    bench.step("1<")
    await settle()
    await bench.workers[0].answer()
    closing = asyncio.ensure_future(bench.replace(60))
    await settle()
    assert not closing.done()
    with pytest.raises(Unavailable, match="model 'm' is being unloaded"):
        bench.step("2<")
    bench.step("1>")
    await settle()
    await bench.workers[0].answer()
    await closing
    assert bench.values() == {"1<": [1.0], "1>": [1.0]}


async def test_a_replaced_model_waits_no_longer_than_its_sequences_are_idle(make: Make) -> None:
    bench = await make(idle_us=20_000).with_workers(1)
    bench.step("1<")
    await settle()
    await bench.workers[0].answer()
    await asyncio.wait_for(bench.replace(60), 30)


async def test_when_the_grace_is_over_the_sequences_are_lost(make: Make) -> None:
    bench = await make().with_workers(1)
    bench.step("1<")
    await settle()
    await bench.workers[0].answer()
    bench.step("2<", "2")
    await settle()
    await bench.replace(0.01)
    lost = "sequence {} of model 'm' was lost: the model was loaded anew"
    assert {name: text.split(",")[0] for name, text in errors(bench).items()} == {
        "2<": lost.format(2),
        "2": lost.format(2),
    }
    successor = await make().with_workers(1)
    successor.sequences.queue.endings.adopt(bench.sequences.queue.endings)
    for name in ("1", "2"):
        with pytest.raises(Unavailable, match=lost.format(name)):
            successor.step(name)


async def test_explain_shows_who_has_which_slot(make: Make) -> None:
    bench = await make(slots=1).with_workers(1)
    bench.step("1<", "2<")
    await settle()
    told = bench.pool.explain()
    assert told["sequences"]["active"] == told["sequences"]["backlog"] == 1
    assert told["instances"][0]["sequences"] == ["1"]
    assert told["queue"]["requests"] == 1
