"""Requests of an ensemble: its steps run when they are due, and nothing of a request that ended is left."""

from __future__ import annotations

import asyncio
import gc
import json
from itertools import count
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ensemble_bench import EnsembleBench
from ensemble_configs import ensemble, step, tensor
from fake_workers import settle
from nested_bench import in_us
from penstock.errors import (
    Cancelled,
    DeadlineExceeded,
    ModelFailed,
    NotFound,
    QueueFull,
    Unavailable,
)
from penstock.repository.ensemble_call import EnsembleCall
from penstock.repository.ensemble_pool import EnsemblePolicy, EnsemblePool
from penstock.repository.nested_call import NestedCall
from penstock.telemetry.statistics import FailureReason
from penstock.telemetry.tracing.records import trace_json
from penstock.telemetry.tracing.spans import Spans
from penstock.telemetry.tracing.trace import Trace
from penstock.trace_config import TraceConfig
from penstock.workers.request import PendingRequest
from penstock.workers.slab_set import LEND_FROM_BYTES
from pool_bench import Make

CHAIN = (step("a", "X=IN", "X=mid"), step("b", "X=mid", "X=OUT"))
DIAMOND = (
    step("a", "X=IN", "X=mid"),
    step("b", "X=mid", "X=LEFT"),
    step("c", "X=mid", "X=RIGHT"),
)
BOTH: Any = {"output": [tensor("LEFT"), tensor("RIGHT")]}
MANY: Any = {"max_batch_size": 100_000}
LARGE = LEND_FROM_BYTES // 4


@pytest.fixture
async def bench(make_pool: Make) -> EnsembleBench:
    """Models a, b and c."""
    bench = EnsembleBench(make_pool)
    for name in "abc":
        await bench.add(name)
    return bench


def under_way(pool: EnsemblePool) -> tuple[int, int]:
    """Requests and bytes."""
    told = pool.explain()["under_way"]
    return told["requests"], told["bytes"]


async def test_one_step_after_the_other(bench: EnsembleBench) -> None:
    pool = bench.ensemble(ensemble(*CHAIN))
    bench.submit("e", "r", 1)
    await bench.answer("a", plus=1)
    assert (bench.values, bench.running("b")) == ({}, [["r"]])
    await bench.answer("b", plus=10)
    assert bench.values == {"r": [12]}
    assert under_way(pool) == (0, 0)


async def test_branches_run_at_the_same_time(bench: EnsembleBench) -> None:
    bench.ensemble(ensemble(*DIAMOND, **BOTH))
    bench.submit("e", "r", 1)
    await bench.answer("a")
    assert (bench.running("b"), bench.running("c")) == ([["r"]], [["r"]])
    await bench.answer("c", plus=2)
    await bench.answer("b", plus=1)
    assert bench.values == {"r": [2, 3]}


async def test_requests_of_all_callers_are_batched_by_each_step(bench: EnsembleBench) -> None:
    bench.ensemble(ensemble(*CHAIN))
    bench.submit("e", "r", 1)
    bench.submit("e", "s", 2)
    await settle()
    assert bench.running("a") == [["r", "s"]]
    await bench.answer("a")
    assert bench.running("b") == [["r", "s"]]
    await bench.answer("b")
    assert bench.values == {"r": [1], "s": [2]}


async def test_only_the_steps_of_the_outputs_asked_for_run(bench: EnsembleBench) -> None:
    bench.ensemble(ensemble(*DIAMOND, **BOTH))
    bench.submit("e", "r", 1, outputs=["RIGHT"])
    await bench.answer("a")
    assert (bench.running("b"), bench.running("c")) == ([], [["r"]])
    await bench.answer("c", plus=1)
    assert bench.values == {"r": [2]}


# ── tensors ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_tensors_stay_in_their_slabs_until_the_last_reader_is_over(
    bench: EnsembleBench,
) -> None:
    pool = bench.ensemble(ensemble(*DIAMOND, **BOTH, **MANY))
    bench.submit("e", "r", 1, rows=LARGE)
    sent = under_way(pool)[1]
    await bench.answer("a")
    assert bench.lent == 1
    assert under_way(pool)[1] == 2 * sent
    await bench.answer("b")
    assert bench.lent == 2
    await bench.answer("c")
    assert (bench.lent, *under_way(pool)) == (0, 0, 0)
    assert bench.values == {"r": [1] * 2 * LARGE}


@pytest.mark.parametrize("end", ["cancel", "fail", "close"])
async def test_nothing_is_lent_after_an_early_end(bench: EnsembleBench, end: str) -> None:
    pool = bench.ensemble(ensemble(*DIAMOND, **BOTH, **MANY))
    request = bench.submit("e", "r", 1, rows=LARGE)
    await bench.answer("a")
    await bench.answer("b")
    assert bench.lent == 2
    if end == "cancel":
        request.cancel()
    elif end == "fail":
        await bench.benches["c"].workers[0].fail("boom")
    else:
        await pool.close(0)
    assert list(bench.values) == ["r"]
    assert (bench.lent, *under_way(pool)) == (0, 0, 0)


async def test_inputs_of_models_with_and_without_batches(bench: EnsembleBench) -> None:
    await bench.add("b", max_batch_size=0)
    bench.ensemble(ensemble(*CHAIN))
    bench.submit("e", "r", 3)
    await bench.answer("a")
    # without the batch dimension there, and with it in the response
    worker = bench.benches["b"].workers[0]
    assert worker.batches[0].inputs[0].shape == (1,)


async def test_an_optional_input_that_is_not_given(bench: EnsembleBench) -> None:
    await bench.add("a", input=[tensor("X", optional=True), tensor("Z")])
    both = ensemble(
        step("a", "X=MORE Z=IN", "X=OUT"),
        input=[tensor("IN"), tensor("MORE", optional=True)],
    )
    bench.ensemble(both)
    bench.submit("e", "r", 3)
    await settle()
    (batch,) = bench.benches["a"].workers[0].batches
    assert [slot.name for slot in batch.inputs] == ["Z"]


async def test_an_input_that_is_missing_and_needed(bench: EnsembleBench) -> None:
    pool = bench.ensemble(ensemble(*CHAIN, input=[tensor("IN", optional=True)]))
    request = bench.request("e", "r", np.zeros(0, np.float32))
    with pytest.raises(
        Exception,
        match=r"in ensemble 'e', step 0 \('a'\): its input 'X' is missing: nothing gave tensor 'IN'",
    ):
        pool.submit(request)
    assert under_way(pool) == (0, 0)


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_error_names_its_step_and_cancels_the_other_branches(
    bench: EnsembleBench,
) -> None:
    pool = bench.ensemble(ensemble(*DIAMOND, **BOTH))
    bench.submit("e", "r", 1)
    await bench.answer("a")
    await bench.benches["c"].workers[0].fail("boom")
    assert isinstance(bench.heard.by_id["r"], ModelFailed)
    assert bench.error("r") == "in ensemble 'e', step 2 ('c'): boom"
    failures = bench.benches["b"].statistics.failures
    assert failures[FailureReason.CANCELED] == 1
    assert under_way(pool)[0] == 0


async def test_a_crash_is_the_models_own_matter(bench: EnsembleBench) -> None:
    bench.ensemble(ensemble(*CHAIN, **MANY))
    bench.submit("e", "r", 1, rows=LARGE)
    await bench.answer("a")
    await bench.benches["b"].workers[0].crash()
    assert bench.values == {}
    await bench.answer("b", plus=1)
    assert bench.values == {"r": [2] * LARGE}
    assert bench.lent == 0


async def test_who_is_cancelled_runs_no_further(bench: EnsembleBench) -> None:
    pool = bench.ensemble(ensemble(*CHAIN))
    request = bench.submit("e", "r", 1)
    await settle()
    request.cancel()
    request.cancel()
    await bench.answer("a")
    assert bench.running("b") == []
    assert isinstance(bench.heard.by_id["r"], Cancelled)
    assert under_way(pool)[0] == 0
    assert bench.models.models["e"].pool is pool


async def test_the_deadline_holds_for_all_steps(bench: EnsembleBench) -> None:
    bench.ensemble(ensemble(*CHAIN))
    soon = bench.request("e", "r", np.ones((1, 1), np.float32))
    soon.deadline_us = in_us(20_000)
    soon.queue.submit(soon)  # type: ignore[attr-defined]
    await settle()
    assert bench.benches["a"].pool.scheduler.next_expiry_us == soon.deadline_us
    await asyncio.wait_for(_until_heard(bench), 60)
    assert isinstance(bench.heard.by_id["r"], DeadlineExceeded)
    assert bench.error("r").startswith("in ensemble 'e', step 0 ('a'): ")
    late = bench.request("e", "s", np.ones((1, 1), np.float32))
    late.deadline_us = in_us(-1)
    with pytest.raises(DeadlineExceeded, match="in ensemble 'e', step 0"):
        late.queue.submit(late)  # type: ignore[attr-defined]


async def _until_heard(bench: EnsembleBench) -> None:
    while not bench.heard.answers:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.001)


async def test_what_comes_with_a_request_comes_with_its_steps(bench: EnsembleBench) -> None:
    bench.ensemble(ensemble(*CHAIN))
    request = bench.request("e", "r", np.ones((1, 1), np.float32), speed="high", sequence_id=7)
    request.tenant, request.deadline_us = "blue", in_us(1e9)
    request.queue.submit(request)  # type: ignore[attr-defined]
    await settle()
    (batch,) = bench.benches["a"].pool.instances[0].running.values()
    (sent,) = batch.requests
    assert (sent.id, sent.tenant, sent.deadline_us) == ("r", "blue", request.deadline_us)
    assert sent.plan.parameters == {"speed": "high", "sequence_id": 7}
    assert sent.caller is not None and sent.caller.depth == 1


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_requests_under_way_are_bounded(bench: EnsembleBench) -> None:
    pool = bench.ensemble(ensemble(*CHAIN), EnsemblePolicy(max_requests=1, max_bytes=1 << 20))
    bench.submit("e", "r", 1)
    with pytest.raises(QueueFull, match="ensemble 'e' has 1 requests under way"):
        bench.submit("e", "s", 1)
    await bench.answer("a")
    await bench.answer("b")
    bench.submit("e", "t", 1)
    assert pool.explain()["refused"] == {"queue_full": 1}


async def test_bytes_under_way_are_bounded_with_what_steps_gave(bench: EnsembleBench) -> None:
    policy = EnsemblePolicy(max_requests=9, max_bytes=8 * LARGE + 4)
    bench.ensemble(ensemble(*CHAIN, **MANY), policy)
    bench.submit("e", "r", 1, rows=LARGE)
    bench.submit("e", "s", 1)
    await settle()
    await bench.answer("a")
    with pytest.raises(QueueFull, match="4 more are over the bound"):
        bench.submit("e", "t", 1)


async def test_what_the_first_step_refuses_is_refused(bench: EnsembleBench) -> None:
    pool = bench.ensemble(ensemble(*DIAMOND, **BOTH))
    await bench.add("a", room=0)
    with pytest.raises(QueueFull, match=r"in ensemble 'e', step 0 \('a'\): Exceeds maximum"):
        bench.submit("e", "r", 1)
    assert bench.heard.answers == []
    assert under_way(pool) == (0, 0)


async def test_a_later_branch_that_is_refused_cancels_the_earlier(bench: EnsembleBench) -> None:
    bench.ensemble(ensemble(step("b", "X=IN", "X=LEFT"), step("c", "X=IN", "X=RIGHT"), **BOTH))
    await bench.add("c", room=0)
    with pytest.raises(QueueFull, match="step 1 "):
        bench.submit("e", "r", 1)
    await settle()
    assert bench.running("b") == []


# ── ensembles in ensembles ──────────────────────────────────────────────────────────────────────────────────────────


def nest(bench: EnsembleBench, **more: Any) -> EnsemblePool:
    """`outer` of `e` and `c`."""
    bench.ensemble(ensemble(*CHAIN, **more))
    steps = step("e", "IN=IN", "OUT=mid"), step("c", "X=mid", "X=OUT")
    return bench.ensemble(ensemble(*steps, name="outer", **more))


async def test_an_ensemble_is_a_step_of_another(bench: EnsembleBench) -> None:
    nest(bench, **MANY)
    bench.submit("outer", "r", 1, rows=LARGE)
    await bench.answer("a", plus=1)
    await bench.answer("b", plus=1)
    assert bench.running("c") == [["r"]]
    # the inner one's output is read where b wrote it
    assert bench.lent == 1
    await bench.answer("c", plus=1)
    assert bench.values == {"r": [4] * LARGE}
    assert bench.lent == 0


async def test_errors_tell_the_whole_way(bench: EnsembleBench) -> None:
    nest(bench)
    bench.submit("outer", "r", 1)
    await bench.answer("a")
    await bench.benches["b"].workers[0].fail("boom")
    assert bench.error("r") == (
        "in ensemble 'outer', step 0 ('e'): in ensemble 'e', step 1 ('b'): boom"
    )


async def test_cancelling_reaches_the_innermost(bench: EnsembleBench) -> None:
    outer = nest(bench, **MANY)
    request = bench.submit("outer", "r", 1, rows=LARGE)
    await bench.answer("a")
    request.cancel()
    assert bench.lent == 0
    assert under_way(outer) == (0, 0)
    assert bench.benches["b"].statistics.failures[FailureReason.CANCELED] == 1


async def test_the_outer_one_is_not_ready_while_the_inner_is_not(bench: EnsembleBench) -> None:
    outer = nest(bench)
    bench.models.models.pop("b")
    inner = bench.models.models["e"].pool
    assert isinstance(inner, EnsemblePool)
    assert inner.recheck() and outer.recheck()
    assert "step 0 ('e'): " in outer.problem
    assert (outer.ready, outer.accepts) == (False, False)


# ── models that come and go ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_model_that_is_replaced_meanwhile(bench: EnsembleBench) -> None:
    pool = bench.ensemble(ensemble(*CHAIN))
    bench.submit("e", "r", 1)
    await bench.add("b")
    pool.recheck()
    await bench.answer("a")
    await bench.answer("b", plus=1)
    assert bench.values == {"r": [2]}


async def test_a_model_that_fits_no_more(bench: EnsembleBench) -> None:
    pool = bench.ensemble(ensemble(*CHAIN))
    await bench.add("b", input=[tensor("X", dims=[2])])
    assert pool.recheck()
    assert pool.problem.startswith("tensor 'mid' has the shape [-1, 1]")
    assert (pool.ready, pool.last_crash) == (False, pool.problem)
    with pytest.raises(Unavailable, match="ensemble 'e' can't run: tensor 'mid'"):
        bench.submit("e", "r", 1)
    await bench.add("b")
    assert pool.recheck()
    assert (pool.problem, pool.ready) == ("", True)
    assert not pool.recheck()


async def test_a_model_that_is_gone(bench: EnsembleBench) -> None:
    pool = bench.ensemble(ensemble(*CHAIN))
    bench.submit("e", "r", 1)
    bench.models.models.pop("b")
    bench.models.generation += 1
    pool.recheck()
    assert pool.problem == "step 1 ('b'): Request for unknown model: 'b' is not found: gone"
    await bench.answer("a")
    assert isinstance(bench.heard.by_id["r"], NotFound)


async def test_a_worker_that_crashed_makes_it_not_ready(bench: EnsembleBench) -> None:
    pool = bench.ensemble(ensemble(*CHAIN))
    bench.benches["b"].start_errors.append(Unavailable("no memory"))
    await bench.benches["b"].workers[0].crash()
    assert not pool.ready
    assert pool.last_crash.startswith("step 1 ('b'): ")


async def test_closing_waits_for_what_is_under_way(bench: EnsembleBench) -> None:
    pool = bench.ensemble(ensemble(*CHAIN))
    bench.submit("e", "r", 1)
    closing = asyncio.create_task(pool.close(30))
    await settle()
    with pytest.raises(Unavailable, match="'e' is being unloaded"):
        bench.submit("e", "s", 1)
    await bench.answer("a")
    assert not closing.done()
    await bench.answer("b")
    await closing
    assert bench.values == {"r": [1]}


# ── what it tells ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_statistics_are_of_requests_and_all_steps_times(bench: EnsembleBench) -> None:
    bench.ensemble(ensemble(*CHAIN))
    bench.submit("e", "r", 1, rows=3)
    await bench.answer("a")
    await bench.answer("b")
    told = bench.models.models["e"].statistics.to_json()
    assert (told["inference_count"], told["execution_count"]) == (3, 1)
    stats = told["inference_stats"]
    # each of the two batches says 1, 2, 3
    assert (stats["compute_input"]["ns"], stats["compute_infer"]["ns"]) == (2, 4)
    assert (stats["compute_output"]["ns"], stats["success"]["count"]) == (6, 1)


async def test_failures_are_counted_by_their_reasons(bench: EnsembleBench) -> None:
    bench.ensemble(ensemble(*CHAIN), EnsemblePolicy(max_requests=1, max_bytes=1 << 20))
    bench.submit("e", "r", 1)
    with pytest.raises(QueueFull):
        bench.submit("e", "s", 1)
    await settle()
    await bench.benches["a"].workers[0].fail("boom")
    failures = bench.models.models["e"].statistics.failures
    assert {reason: count for reason, count in failures.items() if count} == {
        FailureReason.REJECTED: 1,
        FailureReason.BACKEND: 1,
    }


async def test_explain(bench: EnsembleBench) -> None:
    pool = bench.ensemble(ensemble(*CHAIN))
    assert pool.explain() == {
        "under_way": {"requests": 0, "bytes": 0, "max_requests": 100, "max_bytes": 1 << 30},
        "refused": {"queue_full": 0},
        "steps": [
            {"step": 0, "model": "a", "version": "1", "ready": True},
            {"step": 1, "model": "b", "version": "1", "ready": True},
        ],
    }
    bench.models.models.pop("a")
    pool.recheck()
    told = pool.explain()
    assert told["problem"] == pool.problem
    assert told["steps"][0] == {"step": 0, "model": "a", "version": "", "ready": False}


async def test_labels_are_those_of_the_model_unless_there_are_own_ones(
    bench: EnsembleBench,
) -> None:
    model = bench.models.models["b"]
    assert isinstance(model.labels, dict)
    model.labels["X"] = ("zero", "one")
    pool = bench.ensemble(ensemble(*CHAIN))
    assert pool.labels == {"OUT": ("zero", "one")}
    pool.set_labels({"OUT": ("null", "eins")})
    assert pool.labels == {"OUT": ("null", "eins")}


async def test_an_output_of_another_shape_than_was_promised(bench: EnsembleBench) -> None:
    free: Any = {"input": [tensor("X", dims=[-1])], "output": [tensor("X", dims=[-1])]}
    await bench.add("a", **free)
    chain = ensemble(*CHAIN[:1], input=[tensor("IN", dims=[-1])], output=[tensor("mid", dims=[2])])
    bench.ensemble(chain)
    request = bench.request("e", "r", np.ones((1, 1), np.float32))
    request.queue.submit(request)  # type: ignore[attr-defined]
    await bench.answer("a")
    assert isinstance(bench.heard.by_id["r"], ModelFailed)
    assert bench.error("r") == (
        "in ensemble 'e', output 'mid' has the shape [1, 1]; expected [-1, 2]"
    )


async def test_a_request_that_has_ended_leaves_nothing_for_the_collector(
    bench: EnsembleBench,
) -> None:
    """Cycles would keep tensors, and with them slabs, until it comes."""
    nest(bench, **MANY)
    kinds = PendingRequest, NestedCall, EnsembleCall
    gc.collect()
    gc.disable()
    try:
        # other tests' may still be held, by what is told of their failures
        # not isinstance: some of torch's objects warn of themselves when their __class__ is asked for
        before = {id(each) for each in gc.get_objects() if type(each) in kinds}
        for failing in (False, True):
            bench.submit("outer", f"r{failing}", 1, rows=LARGE)
            await bench.answer("a")
            if failing:
                await bench.benches["b"].workers[0].fail("boom")
            else:
                await bench.answer("b")
                await bench.answer("c")
        await settle()
        left = [each for each in gc.get_objects() if type(each) in kinds]
        assert [each for each in left if id(each) not in before] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("form", ["json", "spans"])
async def test_a_trace_has_those_of_the_steps_in_it(bench: EnsembleBench, form: str) -> None:
    nest(bench)
    ended: list[Trace] = []
    trace = Trace(count(1), None, "outer", 1, "r", None, ended.append, tensors=False)
    request = bench.request("outer", "r", np.ones((1, 1), np.float32))
    trace.follow(request)
    request.queue.submit(request)  # type: ignore[attr-defined]
    for name in "abc":
        await bench.answer(name)
    (whole,) = ended
    if form == "json":
        records = json.loads(b"[" + trace_json(whole, timestamps=True) + b"]")
        about = {
            r["id"]: (r["model_name"], r.get("parent_id")) for r in records if "model_name" in r
        }
        assert about == {1: ("outer", None), 2: ("e", 1), 3: ("a", 2), 4: ("b", 2), 5: ("c", 1)}
        return
    exporter = InMemorySpanExporter()
    spans = Spans(TraceConfig(mode="opentelemetry"), exporter)
    spans.write(whole)
    spans.close()
    names = [span.name for span in exporter.get_finished_spans()]
    # ensembles compute nothing themselves
    assert sorted(names) == sorted(["outer", "e", *"abc", *["compute"] * 3])
