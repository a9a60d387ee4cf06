"""A cached pool whose requests models have sent: parameters of responses, circles, and who hears that they are gone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cache_bench import CacheBench
from fake_workers import settle
from nested_bench import Models, as_values, served, tensors
from penstock.errors import Cancelled, PenstockError, Unavailable
from penstock.repository.nested import NestedCalls
from penstock.repository.nested_call import NestedCall, Tensors, Terms
from penstock.types import OutputTensor
from penstock.workers.request import PendingRequest

Make = Callable[..., CacheBench]

pytestmark = pytest.mark.extension("response_cache")


async def test_parameters_of_a_response_are_part_of_the_answer(make_cached: Make) -> None:
    def told(request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        return np.float32(request.response_parameters["n"]).tobytes()

    bench = await make_cached().with_workers(1)
    bench.submit("leads", encode=told)
    bench.submit("waits", encode=told)
    await settle()
    (batch,) = bench.bench.pool.instances[0].running.values()
    batch.requests[0].response_parameters = {"n": 5}
    await bench.run()
    bench.submit("hits", encode=told)
    await settle()
    assert bench.answers == {"leads": [5], "waits": [5], "hits": [5]}


async def test_a_request_that_closes_a_circle_waits_for_no_other(make_cached: Make) -> None:
    """It would wait for itself if it waited for the one that is the same."""
    bench = await make_cached(preserve_ordering=True).with_workers(2)
    bench.bench.pool.front = bench.pool
    models = Models()
    models.put("m", served(bench.pool))
    calls = NestedCalls(models)
    answers: list[Tensors | PenstockError] = []
    terms = Terms(holder=bench.bench.pool.front)

    def ask(value: float) -> NestedCall:
        array = np.full((1, 1), value, np.float32)
        return calls.submit("m", "", tensors({"X": array}), (), terms, answers.append)

    bench.submit("calls itself", 1)
    await settle()
    ask(1)
    assert len([batch for worker in bench.bench.workers for batch in worker.batches]) == 2
    with pytest.raises(Unavailable, match="no idle instance"):
        ask(2)
    await bench.bench.workers[1].answer()
    assert [as_values(answer) for answer in answers] == [[1]]
    await bench.run()
    ask(1)
    await settle()
    assert [as_values(answer) for answer in answers] == [[1], [1]]
    gone = ask(1)
    gone.cancel()
    await settle()
    assert isinstance(answers[-1], Cancelled)
    assert bench.answers == {"calls itself": [1]}
    assert bench.counts.hits == 1


async def test_the_worker_hears_that_nobody_waits_any_more(make_cached: Make) -> None:
    bench = await make_cached().with_workers(1)
    stopped: list[PendingRequest] = []

    def stop(request: PendingRequest) -> bool:
        stopped.append(request)
        return True

    bench.bench.pool.instances[0].cancel = stop  # type: ignore[method-assign]
    bench.submit("a")
    bench.submit("b")
    await settle()
    bench.requests["a"].cancel()
    assert not stopped
    bench.requests["b"].cancel()
    assert [request.id for request in stopped] == ["a"]
    await bench.run()


async def test_a_run_that_an_instance_waits_for_is_known_as_that(make_cached: Make) -> None:
    """It gets the resources that others hold meanwhile, whoever asked for the same before."""
    bench = make_cached()
    models = Models()
    models.put("m", served(bench.pool))
    calls = NestedCalls(models)
    answers: list[Tensors | PenstockError] = []
    bench.submit("a client's", 1, timeout_us=60e6)
    array = np.full((1, 1), 1, np.float32)
    terms = Terms(holder="another model")
    call = calls.submit("m", "", tensors({"X": array}), (), terms, answers.append, "a model's")
    await bench.with_workers(1)
    await settle()
    assert bench.running == [["a model's"]]
    call.cancel()
    await bench.run()
    await settle()
    assert bench.answers == {"a client's": [1]}
    assert isinstance(answers[0], Cancelled)
