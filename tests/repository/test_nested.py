"""Requests that other models send: their answers stay where the worker wrote them, for as long as they are needed."""

from __future__ import annotations

from math import inf
from typing import Any
from weakref import ref

import numpy as np
import pytest

from fake_workers import settle
from nested_bench import NestedBench, in_us, served
from pending import pending
from penstock.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    ModelFailed,
    NotFound,
    Unavailable,
)
from penstock.repository.nested import MAX_DEPTH
from penstock.repository.nested_call import NestedCall, Tensors, Terms, terms_of
from penstock.repository.pool_policy import PoolPolicy
from penstock.repository.sequence_pool import SequencePool
from penstock.scheduling.sequence_slots import SequencePolicy
from penstock.telemetry.statistics import FailureReason
from penstock.types import Array
from penstock.workers.slab_set import LEND_FROM_BYTES, SLABS
from pool_bench import Make

MANY = 100_000


def large(value: float) -> Array:
    """An input whose answer is lent."""
    return np.full((LEND_FROM_BYTES // 4, 1), value, np.float32)


def small(value: float) -> Array:
    """One whose answer is copied."""
    return np.full((1, 1), value, np.float32)


async def nested(make_pool: Make, workers: int = 1, **policy: object) -> NestedBench:
    return NestedBench(await make_pool(max_rows=MANY, **policy).with_workers(workers))


async def test_a_large_answer_is_lent_and_its_slab_replaced(make_pool: Make) -> None:
    call = await nested(make_pool, merge=False)
    (worker,) = call.bench.workers
    for number in range(6):
        call.submit(large(number))
        await settle()
        await worker.answer()
    assert len(worker.slabs) == SLABS + 6
    assert call.values == [large(number).ravel().tolist() for number in range(6)]
    for answer in call.answers:
        assert isinstance(answer, Tensors)
        answer.release()
    await settle()
    assert len(worker.slabs) < SLABS + 6


async def test_a_small_answer_is_copied(make_pool: Make) -> None:
    call = await nested(make_pool)
    for number in range(6):
        call.submit(small(number))
        await settle()
        await call.bench.workers[0].answer()
    assert call.values == [[number] for number in range(6)]
    assert len(call.bench.workers[0].slabs) == SLABS


async def test_beyond_the_bound_answers_are_copied(make_pool: Make) -> None:
    call = await nested(make_pool, merge=False, max_queue_bytes=1_000_000)
    (worker,) = call.bench.workers
    for number in range(6):
        call.submit(large(number))
        await settle()
        await worker.answer()
    assert SLABS < len(worker.slabs) < SLABS + 6
    assert call.values == [large(number).ravel().tolist() for number in range(6)]


async def test_answers_outlive_the_worker_and_the_model(make_pool: Make) -> None:
    call = await nested(make_pool)
    call.submit(large(1))
    await settle()
    await call.bench.workers[0].answer()
    await call.bench.workers[0].crash()
    call.submit(large(2))
    await settle()
    await call.bench.workers[1].answer()
    await call.bench.pool.close(0)
    assert call.values == [large(1).ravel().tolist(), large(2).ravel().tolist()]
    for answer in call.answers:
        assert isinstance(answer, Tensors)
        answer.release()


async def test_calls_are_batched_with_each_other(make_pool: Make) -> None:
    call = await nested(make_pool)
    call.submit(small(7), request_id="a")
    call.submit(small(8), request_id="b")
    await settle()
    assert call.bench.running == [["a", "b"]]
    await call.bench.workers[0].answer()
    assert call.values == [[7], [8]]


async def test_an_error_is_the_answer(make_pool: Make) -> None:
    call = await nested(make_pool)
    call.submit(small(1))
    await settle()
    await call.bench.workers[0].fail("out of luck")
    (answer,) = call.answers
    assert isinstance(answer, ModelFailed)


def test_an_answered_call_knows_its_caller_no_more() -> None:
    """The caller knows the call: together they would be garbage that only a collection finds."""

    class Caller:
        def hear(self, _: object) -> None: ...

    caller = Caller()
    call = NestedCall(caller.hear, 1, Terms(), lambda: None)
    alive = ref(caller)
    request: Any = None
    call.respond(request, ModelFailed("oh"))
    del caller
    assert alive() is None


async def test_what_is_cancelled_does_not_run(make_pool: Make) -> None:
    call = await nested(make_pool)
    handle = call.submit(small(1))
    handle.cancel()
    handle.cancel()
    await settle()
    assert call.bench.running == []
    (answer,) = call.answers
    assert isinstance(answer, Cancelled)
    assert call.bench.statistics.failures[FailureReason.CANCELED] == 1


async def test_a_call_that_is_cancelled_while_it_waits_for_its_turn_keeps_no_slab(
    make_pool: Make,
) -> None:
    call = await nested(make_pool, workers=2, merge=False, preserve_ordering=True)
    first, second = call.submit(large(1)), call.submit(large(2))
    await settle()
    await call.bench.workers[1].answer()
    assert call.answers == []
    second.cancel()
    first.cancel()
    assert [type(answer) for answer in call.answers] == [Cancelled, Cancelled]
    handles = [call.submit(large(3)) for _ in range(2)]
    await settle()
    assert len(handles) == len(call.bench.running[1:])


async def test_the_callers_deadline_holds(make_pool: Make) -> None:
    call = await nested(make_pool)
    with pytest.raises(DeadlineExceeded):
        call.submit(small(1), Terms(deadline_us=in_us(-1)))
    call.models.put("m", served(call.bench.pool, timeout_us=1_000_000))
    assert call.submit(small(1)).request.deadline_us < inf
    assert not call.submit(small(1)).request.deadline_is_clients
    soon = in_us(1_000)
    assert call.submit(small(1), Terms(deadline_us=soon)).request.deadline_us == soon


async def test_a_request_takes_over_its_callers_terms(make_pool: Make) -> None:
    parent = pending({"X": small(1)})
    parent.tenant, parent.deadline_us, parent.deadline_is_clients = "blue", in_us(1e6), False
    terms = terms_of(parent)
    assert terms == Terms("blue", parent.deadline_us, False, 1, None, None)
    call = await nested(make_pool)
    child = call.submit(small(1), terms).request
    assert (child.tenant, child.deadline_us) == ("blue", parent.deadline_us)
    assert terms_of(child).depth == 2


async def test_calls_in_a_circle_end(make_pool: Make) -> None:
    call = await nested(make_pool)
    call.submit(small(1), Terms(depth=MAX_DEPTH))
    with pytest.raises(InvalidRequest, match="more than 16 deep: do they call each other"):
        call.submit(small(1), Terms(depth=MAX_DEPTH + 1))


async def test_bad_calls_are_refused(make_pool: Make) -> None:
    call = await nested(make_pool)
    with pytest.raises(NotFound, match="'other' is not found"):
        call.calls.submit("other", "", (), (), Terms(), call.answers.append)
    with pytest.raises(InvalidRequest, match="unexpected shape"):
        call.submit(np.ones((1, 2), np.float32))
    with pytest.raises(InvalidRequest, match="data-type is 'INT32'"):
        call.submit(np.ones((1, 1), np.int32))
    assert call.answers == []


async def test_a_model_that_is_loaded_anew_is_found(make_pool: Make) -> None:
    call = await nested(make_pool)
    call.submit(small(1))
    other = await make_pool(max_rows=MANY).with_workers(1)
    call.models.put("m", served(other.pool))
    call.submit(small(2), request_id="n")
    await settle()
    assert other.running == [["n"]]


async def test_a_model_that_calls_itself_runs_at_once_or_is_refused(make_pool: Make) -> None:
    call = await nested(make_pool, workers=2, max_delay_us=60_000_000)
    itself = Terms(holder=call.bench.pool)
    call.submit(small(1), itself, request_id="at once")
    assert call.bench.running == [["at once"]], "it does not wait for others to join it"
    call.submit(small(2), itself)
    with pytest.raises(Unavailable, match=r"no idle instance.*deadlock"):
        call.submit(small(3), itself)
    assert call.bench.statistics.failures[FailureReason.REJECTED] == 1
    for worker in call.bench.workers:
        await worker.answer()
    assert call.values == [[1], [2]]


async def test_one_that_may_not_wait_is_not_run_again(make_pool: Make) -> None:
    call = await nested(make_pool)
    call.submit(small(1), Terms(holder=call.bench.pool))
    await settle()
    await call.bench.workers[0].crash()
    (answer,) = call.answers
    assert isinstance(answer, Unavailable)
    assert "the worker process ended while it ran this request" in str(answer)


async def test_one_that_may_not_wait_keeps_to_no_order(make_pool: Make) -> None:
    call = await nested(make_pool, workers=2, preserve_ordering=True)
    call.submit(small(1))
    await settle()
    call.submit(small(2), Terms(holder=call.bench.pool))
    await settle()
    await call.bench.workers[1].answer()
    assert call.values == [[2]]


async def test_a_call_that_closes_no_circle_waits_its_turn(make_pool: Make) -> None:
    call = await nested(make_pool, merge=False)
    for number in range(3):
        call.submit(small(number), Terms(holder="another model"))
    for _ in range(3):
        await settle()
        await call.bench.workers[0].answer()
    assert call.values == [[0], [1], [2]]


async def test_stateful_models_can_not_be_called_in_a_circle(make_pool: Make) -> None:
    call = await nested(make_pool)
    policy = PoolPolicy(call.bench.policy.scheduling, sequences=SequencePolicy(2, 1_000_000))
    pool = SequencePool(policy, call.bench.statistics, call.bench._start, lambda: None)
    call.models.put("m", served(pool))
    with pytest.raises(Unavailable, match="no idle instance"):
        call.submit(small(1), Terms(holder=pool))
    await pool.close(0)
