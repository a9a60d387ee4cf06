"""A cached pool: what is answered without the model, whose answers are whose, and how it is counted."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
import pytest

from cache_bench import CacheBench
from fake_workers import rows, settle, until
from nested_bench import Models, as_values, served, tensors
from penstock.caching.answer import Kept, size_bytes
from penstock.caching.byte_lru import ByteLru
from penstock.errors import Cancelled, InvalidRequest, PenstockError, QueueFull, Unavailable
from penstock.repository import cached_pool
from penstock.repository.nested import NestedCalls
from penstock.repository.nested_call import NestedCall, Tensors, Terms, terms_of
from penstock.telemetry.statistics import FailureReason
from penstock.types import OutputTensor
from penstock.workers.request import PendingRequest
from penstock.workers.slab_set import LEND_FROM_BYTES

Make = Callable[..., CacheBench]

pytestmark = pytest.mark.extension("response_cache")


def refuse(request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
    """An `encode` for outputs that can't be what the client asked for."""
    raise InvalidRequest("no classes of this")


async def test_the_second_one_is_answered_without_the_model(make_cached: Make) -> None:
    bench = await make_cached().with_workers(1)
    bench.submit("a", 7)
    await settle()
    await bench.run()
    bench.submit("b", 7)
    assert "b" not in bench.answers, "never before submit returns"
    await settle()
    assert bench.answers == {"a": [7], "b": [7]}
    assert bench.running == []
    row = bench.bench.statistics.to_json()
    stats = row["inference_stats"]
    assert (row["inference_count"], row["execution_count"]) == (1, 1)
    assert stats["success"]["count"] == stats["queue"]["count"] == 2
    assert {stats[f"compute_{part}"]["count"] for part in ("input", "infer", "output")} == {1}
    assert (stats["cache_hit"]["count"], stats["cache_miss"]["count"]) == (1, 1)
    assert 0 < stats["cache_hit"]["ns"] < stats["success"]["ns"]
    assert stats["cache_miss"]["ns"] > 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"value": 1}, {"value": 2}),
        ({"inputs": rows([1])}, {"inputs": rows([1, 1])}),
        ({"tenant": "a"}, {"tenant": "b"}),
        ({"parameters": {"temperature": 1}}, {"parameters": {"temperature": 2}}),
        ({"parameters": {"flag": True}}, {"parameters": {"flag": 1}}),
    ],
)
async def test_what_differs_misses(
    make_cached: Make, first: dict[str, object], second: dict[str, object]
) -> None:
    bench = await make_cached().with_workers(1)
    for name, fields in (("a", first), ("b", second)):
        bench.submit(name, **fields)  # type: ignore[arg-type]
        await settle()
        await bench.run()
    assert (bench.counts.hits, bench.counts.misses, bench.counts.entries) == (0, 2, 2)


async def test_what_only_the_queue_sees_does_not_matter(make_cached: Make) -> None:
    bench = await make_cached().with_workers(1)
    bench.submit("a", parameters={"priority": 1, "timeout": 10**7})
    await settle()
    await bench.run()
    bench.submit("b", timeout_us=5e6, priority=2, parameters={"timeout": 5_000_000})
    await settle()
    assert bench.answers == {"a": [1], "b": [1]}
    assert bench.counts.hits == 1


async def test_the_longest_unused_makes_room(make_cached: Make) -> None:
    output = OutputTensor("X", "FP32", (1, 1), b"1234")
    bench = await make_cached(2 * size_bytes([output])).with_workers(1)
    for name, value in (("a", 1), ("b", 2)):
        bench.submit(name, value)
        await settle()
        await bench.run()
    bench.submit("a again", 1)
    bench.submit("c", 3)
    await settle()
    await bench.run()
    assert (bench.counts.entries, bench.counts.evictions) == (2, 1)
    assert bench.counts.nbytes == bench.cache.used_bytes == bench.cache.budget_bytes
    bench.submit("a once more", 1)
    bench.submit("b again", 2)
    await settle()
    assert bench.running == [["b again"]]
    await bench.run()


async def test_an_answer_larger_than_the_cache_is_not_kept(make_cached: Make) -> None:
    bench = await make_cached(1000).with_workers(1)
    for name in "ab":
        bench.submit(name, inputs=rows([1] * 200))
        await settle()
        await bench.run()
    assert (bench.counts.misses, bench.counts.too_large, bench.counts.entries) == (2, 2, 0)
    # but those who wait for it get it
    bench.submit("c", inputs=rows([1] * 200))
    bench.submit("d", inputs=rows([1] * 200))
    await settle()
    await bench.run()
    await settle()
    assert bench.answers["c"] == bench.answers["d"] == [1] * 200
    assert bench.cache.used_bytes == 0


async def test_errors_are_not_kept(make_cached: Make) -> None:
    bench = await make_cached().with_workers(1)
    bench.submit("a")
    await settle()
    await bench.bench.workers[0].fail("out of luck")
    bench.submit("b")
    await settle()
    await bench.run()
    assert bench.answers == {"a": "ModelFailed", "b": [1]}
    assert (bench.counts.hits, bench.counts.misses) == (0, 1)
    assert bench.books == (1, 1)


async def test_a_response_that_cannot_be_made_is_an_error_of_its_own(make_cached: Make) -> None:
    bench = await make_cached().with_workers(1)
    bench.submit("leads", encode=refuse)
    bench.submit("waits")
    bench.submit("waits in vain", encode=refuse)
    await settle()
    await bench.run()
    await settle()
    bench.submit("comes later", encode=refuse)
    bench.submit("hits")
    await settle()
    assert bench.answers == {
        "leads": "InvalidRequest",
        "waits": [1],
        "waits in vain": "InvalidRequest",
        "comes later": "InvalidRequest",
        "hits": [1],
    }
    assert bench.books == (2, 3)
    assert bench.bench.statistics.failures[FailureReason.BACKEND] == 3


async def test_large_inputs_are_hashed_beside_the_event_loop(
    make_cached: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_pool, "ASIDE_FROM_BYTES", 4)
    bench = await make_cached(max_waiting=2).with_workers(1)
    bench.submit("a")
    bench.submit("gone")
    with pytest.raises(QueueFull):
        bench.submit("too many")
    assert bench.room.requests == 2
    bench.requests["gone"].cancel()
    await until(lambda: bool(bench.running))
    await bench.run()
    bench.submit("b")
    await until(lambda: "b" in bench.answers)
    assert bench.answers == {"gone": "Cancelled", "a": [1], "b": [1]}
    assert bench.books == (2, 2)
    assert bench.room.requests == bench.room.nbytes == 0


async def test_a_refusal_of_the_queue_reaches_those_that_were_hashed(
    make_cached: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_pool, "ASIDE_FROM_BYTES", 4)
    bench = make_cached(max_queue_requests=1)
    bench.submit("a", 1)
    await until(lambda: not bench.room.requests)
    bench.submit("b", 2)
    await until(lambda: "b" in bench.answers)
    assert bench.answers == {"b": "QueueFull"}
    assert bench.books == (0, 1)


async def test_answers_leave_in_order_where_the_model_asks_for_that(make_cached: Make) -> None:
    bench = await make_cached(preserve_ordering=True).with_workers(1)
    bench.submit("fills", 1)
    await settle()
    await bench.run()
    bench.submit("slow", 2)
    bench.submit("hit", 1)
    bench.submit("cancelled", 1)
    bench.requests["cancelled"].cancel()
    await settle()
    assert [name for name, _ in bench.heard.answers] == ["fills", "cancelled"]
    await bench.run()
    assert [name for name, _ in bench.heard.answers] == ["fills", "cancelled", "slow", "hit"]
    assert bench.answers["hit"] == [1]


async def test_many_hits_don_t_keep_the_loop_from_others(
    make_cached: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_pool, "HITS_A_TURN", 2)
    bench = await make_cached().with_workers(1)
    bench.submit("fills")
    await settle()
    await bench.run()
    for index in range(5):
        bench.submit(f"hit {index}")
    await settle()
    assert len(bench.answers) == 6
    assert bench.counts.hits == 5


async def test_a_restarted_worker_with_other_files_empties_the_cache(make_cached: Make) -> None:
    bench = await make_cached().with_workers(1)
    bench.submit("a")
    await settle()
    await bench.run()
    bench.pool.loaded_from(b"digest")
    assert bench.counts.entries == 1
    bench.pool.loaded_from(b"another")
    assert bench.counts.entries == bench.cache.used_bytes == 0
    bench.submit("b")
    await settle()
    assert bench.running == [["b"]]
    await bench.run()


async def test_what_is_put_in_by_one_load_is_not_found_by_another(make_cached: Make) -> None:
    cache = ByteLru[Kept](1 << 20)
    old = await make_cached(cache=cache).with_workers(1)
    new = await make_cached(cache=cache).with_workers(1)
    old.submit("a")
    await settle()
    await old.run()
    new.submit("b")
    await settle()
    assert new.running == [["b"]]
    await new.run()
    assert len(cache) == 2
    await old.pool.close(0)
    # what is unloaded leaves nothing behind, and takes nothing of others' with it
    assert len(cache) == new.counts.entries == 1
    assert old.counts.entries == old.counts.nbytes == 0


async def test_an_unload_answers_what_is_here(
    make_cached: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await make_cached().with_workers(1)
    bench.submit("fills", 1)
    await settle()
    await bench.run()
    bench.submit("hit", 1)
    bench.submit("runs", 2)
    bench.submit("waits", 2)
    await settle()
    bench.submit("last hit", 1)
    await bench.pool.close(0)
    with pytest.raises(Unavailable, match="being unloaded"):
        bench.submit("late", 1)
    assert bench.answers == {
        "fills": [1],
        "hit": [1],
        "last hit": [1],
        "runs": "Unavailable",
        "waits": "Unavailable",
    }
    assert bench.room.requests == 0
    assert bench.pool.explain()["response_cache"]["runs"] == 0


async def test_an_unload_waits_for_those_that_are_hashed(
    make_cached: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_pool, "ASIDE_FROM_BYTES", 4)
    bench = await make_cached().with_workers(1)
    bench.submit("fills")
    await until(lambda: bool(bench.running))
    await bench.run()
    bench.submit("hashed")
    await bench.pool.close(30)
    assert bench.answers == {"fills": [1], "hashed": [1]}


async def test_the_explanation_tells_of_the_cache(make_cached: Make) -> None:
    bench = await make_cached(5000).with_workers(1)
    bench.submit("a")
    bench.submit("b")
    await settle()
    told = bench.pool.explain()["response_cache"]
    assert (told["runs"], told["waiting"], told["entries"]) == (1, 1, 0)
    await bench.run()
    await settle()
    told = bench.pool.explain()["response_cache"]
    assert told == {
        "budget_bytes": 5000,
        "used_bytes": told["model_bytes"],
        "model_bytes": bench.counts.nbytes,
        "entries": 1,
        "hits": 1,
        "misses": 1,
        "coalesced": 1,
        "evictions": 0,
        "too_large": 0,
        "runs": 0,
        "waiting": 0,
    }
    assert "queue" in bench.pool.explain()


async def test_views_are_not_kept(make_cached: Make) -> None:
    bench = await make_cached().with_workers(1)
    bench.submit("a", 1)
    await settle()
    await bench.run()
    for value in (2, 3, 4):
        bench.submit(str(value), value)
        await settle()
        await bench.run()
    bench.submit("a again", 1)
    await settle()
    assert bench.answers["a again"] == [1]
    assert np.array_equal(np.frombuffer(bench.heard.by_id["a again"], np.float32), [1])  # type: ignore[arg-type]


async def test_models_that_call_others_are_answered_from_the_cache_too(make_cached: Make) -> None:
    """What is large is lent to the one that leads, and the others get the copy."""
    bench = await make_cached().with_workers(1)
    models = Models()
    models.put("m", served(bench.pool))
    calls = NestedCalls(models)
    answers: list[Tensors | PenstockError] = []
    array = np.arange(LEND_FROM_BYTES // 4, dtype=np.float32).reshape(-1, 1)

    def ask() -> NestedCall:
        return calls.submit("m", "", tensors({"X": array}), (), Terms(), answers.append)

    ask()
    gone = ask()
    ask()
    gone.cancel()
    await settle()
    await bench.run()
    await settle()
    ask()
    await settle()
    cancelled, *others = answers
    assert isinstance(cancelled, Cancelled)
    for answer in others:
        assert as_values(answer) == array.ravel().tolist()
    computed = [answer.times.infer_ns for answer in others if isinstance(answer, Tensors)]
    assert [bool(ns) for ns in computed] == [True, False, False]
    for answer in others:
        assert isinstance(answer, Tensors)
        answer.release()
    assert bench.counts.hits == 2
    assert bench.bench.statistics.execution_count == 1


async def test_what_a_run_asks_of_others_may_take_as_long_as_the_last_one_waits(
    make_cached: Make,
) -> None:
    bench = await make_cached().with_workers(1)
    bench.submit("leads", timeout_us=1e6)
    later = bench.submit("waits", timeout_us=9e6)
    await settle()
    instance = bench.bench.pool.instances[0]
    (batch,) = instance.running.values()
    (run,) = batch.requests
    assert terms_of(run).deadline_us == later.deadline_us
    bench.submit("waits for ever")
    assert terms_of(run).deadline_us == inf
    await bench.run()
