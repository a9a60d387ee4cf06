"""The pool of a decoupled model: what its clients hear, in which order, and what its workers are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fake_workers import settle, until
from penstock.errors import Cancelled, InternalError, Unavailable, Unsupported
from penstock.repository import restarts
from penstock.telemetry.latencies import Latencies
from penstock.telemetry.statistics import FailureReason
from penstock.workers import instance as instances
from penstock.workers.message_parts import RequestError
from penstock.workers.open_request import TELL_RESPONSES
from penstock.workers.streams import WINDOW_BYTES
from penstock.workers.worker_commands import Cancel, Taken
from streaming_bench import StreamingBench, StreamingSequenceBench

Make = Callable[..., StreamingBench]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """`make(**policy)` gives a bench without workers."""
    benches: list[StreamingBench] = []

    def one(**policy: Any) -> StreamingBench:
        benches.append(StreamingBench(**policy))
        return benches[-1]

    yield one
    for bench in benches:
        await bench.end()


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "FIRST_BACKOFF_S", 0.0)


async def running(make: Make, *ids: str, **policy: Any) -> StreamingBench:
    """A bench with one worker, which has these requests as its batch 1."""
    bench = await make(**policy).with_workers(1)
    bench.submit(*ids)
    await settle()
    return bench


def answers(bench: StreamingBench) -> dict[str, Any]:
    """By the request's id: `b""`, or the error's class."""
    return {
        name: answer if isinstance(answer, bytes) else type(answer).__name__
        for name, answer in bench.heard.by_id.items()
    }


async def test_parts_come_one_by_one_and_then_the_end(make: Make) -> None:
    bench = await running(make, "a", "b")
    (worker,) = bench.workers
    await worker.respond(1, 10, request=0)
    await worker.respond(1, 20, request=1, why="so")
    assert (bench.parts.of, answers(bench)) == ({"a": [10], "b": [20, {"why": "so"}]}, {})
    await worker.respond(1, 11, request=0, final=True)
    assert answers(bench) == {"a": b""}
    await worker.executed()
    await worker.respond(1, request=1, final=True)
    assert bench.parts.of == {"a": [10, 11, "final"], "b": [20, {"why": "so"}, "final"]}
    assert answers(bench) == {"a": b"", "b": b""}


async def test_an_error_may_come_amid_responses(make: Make) -> None:
    bench = await running(make, "a")
    (worker,) = bench.workers
    await worker.respond(1, error=RequestError(0, "hm", "InvalidRequest"))
    await worker.respond(1, 5)
    await worker.respond(1, error=RequestError(0, "oh", "Unavailable"), final=True)
    assert bench.parts.of == {"a": ["InvalidRequest", 5, "Unavailable", "final"]}
    assert answers(bench) == {"a": b""}
    assert bench.statistics.failures[FailureReason.BACKEND] == 1
    # who waits to send another one hears that there can't be any
    assert await worker.heard() == [Taken(1, 0, 0, 0)]


async def test_a_request_for_exactly_one_response_is_refused(make: Make) -> None:
    bench = await make().with_workers(1)
    bench.with_sink = False
    with pytest.raises(Unsupported) as caught:
        bench.submit("a")
    text = "ModelInfer RPC doesn't support models with decoupled transaction policy"
    assert str(caught.value) == text


async def test_an_instance_goes_on_while_responses_still_come(make: Make) -> None:
    bench = await running(make, "a")
    (worker,) = bench.workers
    for number, name in enumerate("bcde", start=1):
        assert await worker.executed() == number
        bench.submit(name)
        await settle()
        assert worker.ids == [[name]]
    for number in (3, 1, 5, 2, 4):
        await worker.respond(number, number, final=True)
    assert bench.parts.of == {
        name: [number, "final"] for number, name in enumerate("abcde", start=1)
    }
    assert len(answers(bench)) == 5
    assert worker.slabs == {0, 1}


async def test_so_many_batches_may_be_unfinished_and_no_more(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "MAX_STREAMING", 2)
    bench = await running(make, "a", max_rows=1)
    (worker,) = bench.workers
    await worker.executed()
    bench.submit("b")
    await settle()
    await worker.executed()
    bench.submit("c")
    await settle()
    assert worker.ids == []
    await worker.respond(1, final=True)
    assert worker.ids == [["c"]]


async def test_statistics_count_requests_and_responses(make: Make) -> None:
    bench = make()
    bench.statistics.latencies = Latencies((1e9,), summaries=False, decoupled=True)
    await bench.with_workers(1)
    bench.submit("a", "b")
    await settle()
    (worker,) = bench.workers
    for value in (1, 2):
        await worker.respond(1, value, request=0)
    await worker.respond(1, request=0, final=True)
    await worker.respond(1, request=1, error=RequestError(1, "no"), final=True)
    assert bench.statistics.execution_count == 0
    await worker.executed()
    told = bench.statistics.to_json()
    counts = {
        index: {name: each["count"] for name, each in times.items() if each["count"]}
        for index, times in told["response_stats"].items()
    }
    assert counts == {
        "0": {"compute_infer": 2, "compute_output": 2, "success": 1, "fail": 1},
        "1": {"compute_infer": 1, "compute_output": 1, "success": 1},
        "2": {"empty_response": 1},
    }
    assert told["response_stats"]["1"]["success"]["ns"] == 23
    stats = told["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (1, 1)
    assert (told["inference_count"], told["execution_count"]) == (2, 1)
    histogram = bench.statistics.latencies.first_response_ms
    assert histogram is not None and histogram.count == 2


# ── back-pressure ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_worker_is_told_what_was_taken_now_and_then(make: Make) -> None:
    bench = await running(make, "a")
    (worker,) = bench.workers
    for value in range(TELL_RESPONSES + 1):
        await worker.respond(1, value)
    bench.parts.take(TELL_RESPONSES - 1)
    assert await worker.heard() == []
    bench.parts.take(2)
    assert await worker.heard() == [Taken(1, 0, TELL_RESPONSES, 4 * TELL_RESPONSES)]
    await worker.respond(1, 1, nbytes=WINDOW_BYTES)
    bench.parts.take(1)
    assert await worker.heard() == [Taken(1, 0, 2, WINDOW_BYTES + 4)]


async def test_nothing_is_told_of_what_has_ended(make: Make) -> None:
    bench = await running(make, "a")
    (worker,) = bench.workers
    for _ in range(TELL_RESPONSES):
        await worker.respond(1, 1)
    await worker.respond(1, final=True)
    await worker.executed()
    bench.parts.take(TELL_RESPONSES + 1)
    assert await worker.heard() == []


async def test_a_client_may_take_what_a_dead_worker_sent(make: Make) -> None:
    bench = await running(make, "a")
    (worker,) = bench.workers
    for _ in range(TELL_RESPONSES):
        await worker.respond(1, 1)
    await worker.crash()
    bench.parts.take(TELL_RESPONSES)
    assert answers(bench) == {"a": "Unavailable"}
    await until(lambda: bench.pool.ready)


async def test_a_worker_that_does_not_listen_hears_later(make: Make) -> None:
    """Its socket holds only so much: nothing that is said is lost, and the loop never waits."""
    bench = await running(make, "a")
    (worker,) = bench.workers
    for value in range(40):
        await worker.respond(1, value, nbytes=WINDOW_BYTES)
    await worker.executed()
    for _ in range(40):
        for taken in bench.parts.untaken:
            taken()
    bench.submit("b")
    await settle()
    said = 0
    while said < 1600:
        said += len(await worker.heard())
    assert said == 1600
    assert worker.ids == [["b"]]


# ── ends that come early ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_cancelled_request_ends_at_once_and_its_worker_is_told(make: Make) -> None:
    bench = await running(make, "a", "b")
    (worker,) = bench.workers
    first = worker.batches[0].requests[0].id
    await worker.respond(1, 1, request=1)
    bench.last.cancel()
    assert answers(bench) == {"b": "Cancelled"}
    assert await worker.heard() == [Cancel(1, 1)]
    await worker.respond(1, 2, request=1)
    await worker.respond(1, request=1, final=True)
    await worker.respond(1, 3, request=0, final=True)
    await worker.executed()
    assert first == "a"
    assert bench.parts.of == {"b": [1], "a": [3, "final"]}
    assert bench.statistics.failures[FailureReason.CANCELED] == 1
    assert bench.statistics.responses.to_json()["1"]["cancel"]["count"] == 1
    assert isinstance(bench.heard.by_id["b"], Cancelled)


async def test_a_sink_may_cancel_while_it_is_given_a_part(make: Make) -> None:
    bench = await running(make, "a")
    (worker,) = bench.workers
    bench.parts.part = lambda request, part: request.cancel()  # type: ignore[method-assign]
    await worker.respond(1, 1, final=True)
    assert answers(bench) == {"a": "Cancelled"}


async def test_a_sink_that_fails_ends_its_own_request_only(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bench = await running(make, "a", "b")
    (worker,) = bench.workers
    bench.parts.fail = True
    await worker.respond(1, 1)
    bench.parts.fail = False
    await worker.respond(1, 2, request=1, final=True)
    assert isinstance(bench.heard.by_id["a"], InternalError)
    assert await worker.heard() == [Cancel(1, 0)]
    assert bench.parts.of == {"b": [2, "final"]}


async def test_time_may_be_over_amid_responses(make: Make) -> None:
    bench = await make().with_workers(1)
    bench.submit("a", timeout_us=20_000)
    await settle()
    (worker,) = bench.workers
    await worker.respond(1, 1)
    await until(lambda: bool(bench.heard.answers))
    assert answers(bench) == {"a": "DeadlineExceeded"}
    assert await worker.heard() == [Cancel(1, 0)]
    await worker.respond(1, 2, final=True)
    await worker.executed()
    assert bench.parts.of == {"a": [1]}


async def test_a_model_that_fails_as_a_whole(make: Make) -> None:
    bench = await running(make, "a", "b")
    (worker,) = bench.workers
    await worker.fail("it can't be read")
    assert answers(bench) == {"a": "ModelFailed", "b": "ModelFailed"}
    assert bench.statistics.failures[FailureReason.BACKEND] == 2


# ── workers that end ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("no_backoff")
async def test_after_a_crash_what_had_no_response_runs_again(make: Make) -> None:
    bench = await running(make, "a", "b")
    (worker,) = bench.workers
    await worker.respond(1, 1, request=0)
    await worker.executed()
    bench.submit("c")
    await settle()
    await worker.crash()
    assert answers(bench) == {"a": "Unavailable"}
    error = bench.heard.by_id["a"]
    assert str(error) == (
        "the worker process ended amid this request's responses: killed by SIGKILL"
    )
    other = bench.workers[1]
    assert sorted(name for batch in other.ids for name in batch) == ["b", "c"]
    number = other.batches[0].batch
    for place in range(len(other.ids[0])):
        await other.respond(number, 7, request=place, final=True)
    await other.executed()
    assert bench.parts.of["b"] == [7, "final"]


@pytest.mark.usefixtures("no_backoff")
async def test_a_request_that_kills_before_its_first_response_is_found(make: Make) -> None:
    bench = await running(make, "killer", merge=False, max_rows=1)
    for _ in range(3):
        await bench.workers[-1].crash("killed by SIGSEGV")
    assert answers(bench) == {"killer": "WorkerCrashed"}


async def test_a_model_that_goes_on_sending_does_not_hang(make: Make) -> None:
    bench = await running(make, "a", execution_timeout_us=300_000)
    (worker,) = bench.workers
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + 0.75:
        await worker.respond(1, 1)
    assert not worker.process.exited.done()
    await until(worker.process.exited.done)
    assert answers(bench) == {"a": "Unavailable"}
    await until(lambda: bench.pool.ready)


# ── unloading ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_unloaded_model_ends_its_streams_first(make: Make) -> None:
    bench = await running(make, "a")
    (worker,) = bench.workers
    await worker.executed()
    closing = asyncio.ensure_future(bench.pool.close(60))
    await settle()
    with pytest.raises(Unavailable, match="being unloaded"):
        bench.submit("b")
    await worker.respond(1, 1)
    assert not closing.done()
    await worker.respond(1, 2, final=True)
    await closing
    assert (bench.parts.of, answers(bench)) == ({"a": [1, 2, "final"]}, {"a": b""})


async def test_streams_are_cut_when_the_grace_is_over(make: Make) -> None:
    bench = await running(make, "a")
    (worker,) = bench.workers
    await worker.executed()
    await worker.respond(1, 1)
    await bench.pool.close(0.01)
    assert answers(bench) == {"a": "Unavailable"}


# ── sequences ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def sequences() -> AsyncIterator[StreamingSequenceBench]:
    bench = await StreamingSequenceBench(direct=False).with_workers(1)
    yield bench
    await bench.end()


async def test_a_sequence_goes_on_once_its_request_is_executed(
    sequences: StreamingSequenceBench,
) -> None:
    sequences.step("1<", "1>")
    await settle()
    (worker,) = sequences.workers
    assert worker.ids == [["1<"]]
    await worker.respond(1, 1)
    await worker.executed()
    assert worker.ids == [["1>"]]
    await worker.respond(2, 5, final=True)
    await worker.respond(1, 2, final=True)
    await worker.executed()
    assert sequences.parts.of == {"1<": [1, 2, "final"], "1>": [5, "final"]}
    assert sequences.heard.by_id == {"1<": b"", "1>": b""}


async def test_a_crash_ends_streams_of_sequences(sequences: StreamingSequenceBench) -> None:
    sequences.step("1<", "1")
    await settle()
    (worker,) = sequences.workers
    await worker.executed()
    await worker.crash()
    errors = {name: str(answer) for name, answer in sequences.heard.by_id.items()}
    assert errors["1<"].startswith("the worker process ended amid this request's responses")
    assert errors["1"].startswith("sequence 1 of model 'm' was lost")
    await until(lambda: sequences.pool.ready)
