"""Pools whose instances run when the rate limiter lets them: who waits for whom, and what nobody may keep."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import repository_bench
from fake_workers import row, settle
from pending import pending
from penstock.errors import LoadFailed
from penstock.rate_limit_config import Resource
from penstock.repository.turns import Turns, needs_of
from penstock.scheduling.rate_limiter import RateLimiter
from penstock.scheduling.resources import GLOBAL, Needs
from pool_bench import Bench
from repository_bench import explicit, write
from sequence_bench import SequenceBench

pytestmark = pytest.mark.extension("rate_limiter")

Limited = Callable[..., Any]


def group(count: int = 1, priority: int = 0, **resources: int) -> dict[str, Any]:
    """An `instance_group` whose instances need that; of a name that begins with G, all devices have one store."""
    named = [
        {"name": name, "global": name.startswith("G"), "count": needed}
        for name, needed in resources.items()
    ]
    return {"count": count, "rate_limiter": {"resources": named, "priority": priority}}


@pytest.fixture
def limiter() -> RateLimiter:
    """Of all pools of a test."""
    return RateLimiter()


@pytest.fixture
async def limited(limiter: RateLimiter) -> AsyncIterator[Limited]:
    """`await limited(*groups)` gives a pool, all of one limiter, with a worker for each instance."""
    benches: list[Bench] = []

    async def one(*groups: dict[str, Any], **policy: Any) -> Bench:
        config = {"instance_group": list(groups)}
        turns = Turns(limiter, f"m{len(benches)}", config)
        bench = Bench(turns=turns, **{"max_rows": 1, **policy})
        benches.append(bench)
        return await bench.with_workers(len(needs_of(config)))

    yield one
    for bench in benches:
        await bench.end()


def test_what_instances_need() -> None:
    config = {"instance_group": [group(2, 3, R=4, G=1), {"count": 0}, group(R=0)]}
    first = Needs({Resource("R", 0): 4, Resource("G", GLOBAL): 1}, 3)
    assert needs_of(config) == [first, first, Needs(), Needs({Resource("R", 0): 0})]
    assert needs_of({}) == [Needs()]


async def test_one_model_waits_for_the_other(limited: Limited) -> None:
    a, b = await limited(group(R=1)), await limited(group(R=1))
    a.submit("a")
    await settle()
    b.submit("b")
    await settle()
    assert (a.running, b.running) == ([["a"]], [])
    (state,) = b.pool.explain()["rate_limiter"]["instances"]
    assert (state["holds"], state["waits"]) == (False, True)
    assert a.pool.explain()["rate_limiter"]["resources"] == [
        {"name": "R", "device": 0, "held": 1, "count": 1}
    ]
    await a.workers[0].answer()
    assert b.running == [["b"]]
    await b.workers[0].answer()
    assert b.values() == {"b": [98]}
    assert b.pool.explain()["rate_limiter"]["resources"][0]["held"] == 0


async def test_two_busy_models_take_turns(limited: Limited) -> None:
    benches = [await limited(group(R=1)) for _ in range(2)]
    for number, bench in enumerate(benches):
        bench.submit(*(f"{number}{each}" for each in range(6)))
    await settle()
    order = []
    while any(bench.running for bench in benches):
        (bench,) = [each for each in benches if each.running]
        order += await bench.workers[0].answer()
    assert len(order) == 12
    # what the worker has ahead is the only advantage
    first = [name[0] for name in order]
    assert max(abs(first[:n].count("0") - first[:n].count("1")) for n in range(12)) <= 2


async def test_what_needs_nothing_is_not_held_up(limited: Limited) -> None:
    a, b = await limited(group(R=1)), await limited()
    a.submit("a")
    b.submit("b", "c")
    await settle()
    assert (a.running, b.running) == ([["a"]], [["b"], ["c"]])


async def test_groups_may_need_different_things(limited: Limited) -> None:
    other = await limited(group(R=1))
    other.submit("x")
    await settle()
    bench = await limited(group(R=1), group(S=1))
    bench.submit("a")
    await settle()
    assert [worker.ids for worker in bench.workers] == [[], [["a"]]]


async def test_a_crash_gives_back_what_was_held(limited: Limited) -> None:
    a, b = await limited(group(R=1)), await limited(group(R=1))
    a.submit("a")
    await settle()
    b.submit("b")
    await a.workers[0].crash()
    assert b.running == [["b"]]
    # what the crashed one ran waits for its turn, with its new worker
    await settle()
    assert len(a.workers) == 2
    assert a.running == []
    await b.workers[0].answer()
    assert a.running == [["a"]]
    await a.workers[1].answer()
    assert (a.values(), b.values()) == ({"a": [97]}, {"b": [98]})


async def test_an_unload_gives_back_what_was_held(limited: Limited) -> None:
    a, b = await limited(group(R=1)), await limited(group(R=1))
    a.submit("a")
    await settle()
    b.submit("b")
    await a.pool.close(0)
    await settle()
    assert b.running == [["b"]]


async def test_whose_requests_are_gone_does_not_keep_its_turn(limited: Limited) -> None:
    a, b, c = [await limited(group(R=1)) for _ in range(3)]
    a.submit("a")
    await settle()
    b.submit("b")
    await settle()
    c.submit("c")
    await settle()
    b.last.cancel()
    await a.workers[0].answer()
    assert c.running == [["c"]]


async def test_who_waits_for_company_holds_nothing(limited: Limited) -> None:
    a = await limited(group(R=1), max_rows=8, max_delay_us=60_000_000)
    b = await limited(group(R=1))
    a.submit("a")
    await settle()
    b.submit("b")
    await settle()
    assert (a.running, b.running) == ([], [["b"]])
    await b.workers[0].answer()
    a.submit(*"cdefghi")
    await settle()
    assert a.running == [list("acdefghi")]


async def test_what_another_instance_waits_for_is_not_held_up(limited: Limited) -> None:
    """A holds the resource until B has answered: a turn for B would never come."""
    a, b = await limited(group(R=1)), await limited(group(R=1))
    a.submit("a")
    await settle()

    class Caller:
        depth = 1
        holder = a.pool

        def computed(self, times: object, lease: object) -> None:
            """Nothing of it is kept."""

    request = pending(row(1), id="nested", respond=b.heard, queue=b.pool)
    request.caller = Caller()
    b.submit("b")
    b.pool.submit(request)
    await settle()
    assert b.running == [["b"], ["nested"]]
    assert b.pool.explain()["rate_limiter"]["resources"][0]["held"] == 2
    for bench in (b, b, a):
        await bench.workers[0].answer()
    assert sorted(b.heard.by_id) == ["b", "nested"]
    assert b.pool.explain()["rate_limiter"]["resources"][0]["held"] == 0


async def test_sequences_wait_for_their_instances_turn(
    limited: Limited, limiter: RateLimiter
) -> None:
    other = await limited(group(R=1))
    turns = Turns(limiter, "stateful", {"instance_group": [group(2, R=1)]})
    bench = await SequenceBench(turns=turns).with_workers(2)
    try:
        other.submit("a")
        await settle()
        bench.step("1<", "2<")
        await settle()
        assert bench.running == []
        await other.workers[0].answer()
        # each instance has one of them
        assert bench.running == [["1<"]]
        await bench.workers[0].answer()
        assert bench.running == [["2<"]]
        bench.step("1>", "2>")
        await bench.workers[1].answer()
        assert bench.running == [["1>"]]
        await bench.workers[0].answer()
        assert bench.running == [["2>"]]
        await bench.workers[1].answer()
        assert sorted(bench.heard.by_id) == ["1<", "1>", "2<", "2>"]
        # who has nothing to do holds nothing
        other.submit("b")
        await settle()
        assert other.running == [["b"]]
    finally:
        await bench.end()


# ── loading ─────────────────────────────────────────────────────────────────────────────────────────────────────────

CONFIG = 'instance_group [ { rate_limiter { resources [ { name: "R" count: 4 } ] } } ]'


async def test_a_model_that_could_never_run_is_not_loaded(
    make: repository_bench.Make, tmp_path: Path
) -> None:
    write(tmp_path / "a" / "m", 1, config=CONFIG)
    limits = {"rate_limit": "execution_count", "rate_limit_resource": ["R:3"]}
    bench = await explicit(make, **limits)
    with pytest.raises(LoadFailed, match='Resource count for "R" is limited to 3 which will prev'):
        await bench.repository.load("m")
    assert bench.link.started == []
    # and it has left nothing: what there is was said, and no model is there
    write(tmp_path / "a" / "m", 1, config=CONFIG.replace("4", "3"))
    await bench.repository.load("m")
    assert bench.states == {"m/1": "READY"}


async def test_a_load_that_fails_leaves_nothing(
    make: repository_bench.Make, tmp_path: Path
) -> None:
    write(tmp_path / "a" / "m", 1, config=CONFIG)
    write(tmp_path / "a" / "other", 1, config=CONFIG.replace("count", "global: true count"))
    bench = await explicit(make, rate_limit="execution_count")
    bench.link.refuse["m/1"] = "it does not like to"
    with pytest.raises(LoadFailed, match="does not like to"):
        await bench.repository.load("m")
    await bench.repository.load("other")
    del bench.link.refuse["m/1"]
    with pytest.raises(LoadFailed, match="present as both global and device-specific"):
        await bench.repository.load("m")
    await bench.repository.unload("other")
    await bench.repository.load("m")
    assert bench.states["m/1"] == "READY"


async def test_without_the_flag_nothing_is_looked_at(
    make: repository_bench.Make, tmp_path: Path
) -> None:
    write(tmp_path / "a" / "m", 1, config=CONFIG)
    bench = await explicit(make)
    await bench.repository.load("m")
    assert "rate_limiter" not in bench.repository.get("m").pool.explain()


async def test_what_runs_at_once_takes_its_turn_whatever_there_is(limited: Limited) -> None:
    """Its caller's instance waits with it, and holds what it would wait for."""
    bench, other = await limited(group(R=1)), await limited(group(R=1))
    other.submit("o")
    await settle()
    request = pending(row(1), id="n", respond=bench.heard, queue=bench.pool)
    bench.pool.submit_at_once(request)
    await settle()
    assert bench.running == [["n"]]
    await bench.workers[0].answer()
    await other.workers[0].answer()
    assert bench.values() == {"n": [1]}
    (state,) = bench.pool.explain()["rate_limiter"]["instances"]
    assert (state["holds"], state["waits"]) == (False, False)
