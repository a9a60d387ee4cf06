"""One worker as the gateway sees it, over a real channel and real slabs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from descriptors import open_descriptors
from fake_workers import LOAD, FakeWorker, row, settle
from pending import pending
from penstock.errors import LoadFailed
from penstock.logs import LogSettings
from penstock.workers.gather import scatter
from penstock.workers.instance import NOT_YET, Asked, Instance
from penstock.workers.message_parts import RequestError
from penstock.workers.open_request import RunningBatch
from penstock.workers.slab_set import FIRST_SLAB_BYTES, SLABS
from penstock.workers.worker_commands import CallAnswered
from penstock.workers.worker_events import BatchFailed, CallModel, Done, LoadRefused, Ready


class Told:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.done: list[RunningBatch] = []
        self.values: list[list[float]] = []
        self.failed: list[str] = []
        self.exits: list[str] = []
        self.asked: list[Asked] = []

    def on_done(self, instance: Instance, batch: RunningBatch, done: Done) -> None:
        self.done.append(batch)
        for outputs in scatter(instance.slab_of(batch), done, batch.requests):
            assert isinstance(outputs, list)
            self.values.append(np.frombuffer(outputs[0].data, np.float32).tolist())
        instance.release(batch)

    def on_failed(self, instance: Instance, batch: RunningBatch, failed: BatchFailed) -> None:
        self.failed.append(failed.reason)
        instance.release(batch)

    def on_call(self, instance: Instance, call: Asked) -> None:
        self.asked.append(call)

    def on_exit(self, instance: Instance, reason: str) -> None:
        self.exits.append(reason)


@pytest.fixture
async def worker() -> AsyncIterator[FakeWorker]:
    made = FakeWorker()
    made.instance.listener = Told()
    yield made
    made.instance.close()
    made.close()


def told(worker: FakeWorker) -> Told:
    listener = worker.instance.listener
    assert isinstance(listener, Told)
    return listener


async def test_two_batches_at_once_and_no_more(worker: FakeWorker) -> None:
    instance = await worker.load()
    assert (instance.idle, instance.can_take) == (True, True)
    instance.execute([pending(row(1), id="a"), pending(row(2), id="b")], 0)
    assert (instance.idle, instance.can_take) == (False, True)
    instance.execute([pending(row(3), id="c")], 0)
    assert (instance.idle, instance.can_take) == (False, False)
    assert worker.ids == [["a", "b"], ["c"]]
    assert len({batch.slab for batch in worker.batches}) == 2
    await worker.answer()
    assert (instance.idle, instance.can_take) == (False, True)
    await worker.answer()
    assert instance.idle
    assert told(worker).values == [[1], [2], [3]]


async def test_a_failed_batch_frees_its_slab(worker: FakeWorker) -> None:
    instance = await worker.load()
    for attempt in range(5):
        instance.execute([pending(row(1))], 0)
        await worker.fail(f"no {attempt}")
    assert told(worker).failed == [f"no {attempt}" for attempt in range(5)]
    assert instance.idle


async def test_slabs_grow_with_the_batches(worker: FakeWorker) -> None:
    instance = await worker.load()
    large = np.ones((FIRST_SLAB_BYTES, 1), np.float32)
    instance.execute([pending({"X": large}, rows=64)], 0)
    assert worker.batches[0].inputs[0].nbytes == large.nbytes
    worker.batches.pop()


async def test_a_worker_that_is_too_busy_to_read_gets_all_in_order() -> None:
    before = open_descriptors()
    worker = FakeWorker()
    verbosities = list(range(1, 5_000))
    for verbosity in verbosities:
        worker.link.logging = LogSettings(verbose=verbosity)
        worker.instance.tell_logging()
    await worker.load()
    worker.instance.execute([pending(row(1))], 0)
    while not worker.batches:
        await settle()
    assert [settings.verbose for settings in worker.logging] == verbosities
    assert len(worker.slabs) == SLABS
    worker.instance.close()
    worker.close()
    assert open_descriptors() == before


async def test_what_was_not_sent_is_dropped_with_the_worker() -> None:
    before = open_descriptors()
    worker = FakeWorker()
    for verbosity in range(1, 5_000):
        worker.link.logging = LogSettings(verbose=verbosity)
        worker.instance.tell_logging()
    await worker.load()
    worker.instance.close()
    worker.close()
    await settle()
    assert open_descriptors() == before


CALL = CallModel(1, -1, (), "m", "", "", (), (), {}, False)


async def test_what_a_model_asks_is_for_the_listener(worker: FakeWorker) -> None:
    await worker.load()
    worker.send(CALL)
    await settle()
    assert told(worker).asked == [CALL]


async def test_a_model_that_asks_while_it_is_loaded_is_refused() -> None:
    worker = FakeWorker()
    worker.send(CALL)
    await settle()
    assert worker.batches == []
    refusal = RequestError(0, NOT_YET, "Unavailable")
    assert worker.answered == [CallAnswered(1, (), {}, refusal, True)]
    worker.instance.close()
    worker.close()


async def test_a_load_that_is_refused(worker: FakeWorker) -> None:
    worker.send(LoadRefused("no weights"))
    with pytest.raises(LoadFailed, match="no weights"):
        await worker.instance.load(LOAD, 5)


async def test_a_worker_that_ends_while_it_loads(worker: FakeWorker) -> None:
    loading = asyncio.ensure_future(worker.instance.load(LOAD, 5))
    await settle()
    await worker.crash("killed by SIGSEGV")
    with pytest.raises(LoadFailed, match="the worker process ended: killed by SIGSEGV"):
        await loading


async def test_a_load_that_is_refused_by_a_worker_that_ends_at_once(worker: FakeWorker) -> None:
    loading = asyncio.ensure_future(worker.instance.load(LOAD, 5))
    await asyncio.sleep(0)
    worker.send(LoadRefused("no weights"))
    worker.process.exited.set_result("exited with 0")
    with pytest.raises(LoadFailed, match="no weights"):
        await loading


async def test_a_worker_that_is_loaded_and_ends_at_once_has_no_slabs() -> None:
    """They are given up with the end, of which nobody hears twice: what was made after it would stay."""
    before = open_descriptors()
    worker = FakeWorker()
    loading = asyncio.ensure_future(worker.instance.load(LOAD, 5))
    await asyncio.sleep(0)
    worker.send(Ready(b"{}", 1, 0))
    await worker.crash()
    await loading
    assert worker.process.exited.done()
    assert not worker.instance.can_take
    del worker, loading
    assert open_descriptors() == before


@pytest.mark.parametrize("turns", range(4))
async def test_a_load_that_is_given_up_as_its_answer_comes(worker: FakeWorker, turns: int) -> None:
    """Who cancels has nobody to give the instance to."""
    loading = asyncio.ensure_future(worker.instance.load(LOAD, 5))
    await settle()
    worker.send(Ready(b"{}", 1, 0))
    worker.instance._read()
    for _ in range(turns):
        await asyncio.sleep(0)
    if loading.cancel():
        await settle()
        assert loading.cancelled()


async def test_a_load_that_takes_too_long(worker: FakeWorker) -> None:
    with pytest.raises(LoadFailed, match=r"loading took longer than 0.01 s"):
        await worker.instance.load(LOAD, 0.01)


async def test_what_it_said_before_it_ended_counts(worker: FakeWorker) -> None:
    instance = await worker.load()
    instance.execute([pending(row(1))], 0)
    instance.execute([pending(row(2))], 0)
    worker.send(BatchFailed(worker.batches[0].batch, "said in time"))
    worker.process.exited.set_result("killed by SIGKILL")
    await settle()
    assert told(worker).failed == ["said in time"]
    assert told(worker).exits == ["killed by SIGKILL"]
    assert len(instance.running) == 1
    assert not instance.can_take


async def test_the_channels_end_comes_before_the_news_of_the_exit(worker: FakeWorker) -> None:
    instance = await worker.load()
    instance.execute([pending(row(1))], 0)
    worker.close()
    await settle()
    assert told(worker).exits == []
    instance.execute([pending(row(2))], 0)
    worker.process.exited.set_result("killed by SIGKILL")
    await settle()
    assert told(worker).exits == ["killed by SIGKILL"]
    assert len(instance.running) == 2


async def test_nothing_is_left_open() -> None:
    before = open_descriptors()
    for crash in (False, True):
        worker = FakeWorker()
        instance = await worker.load()
        instance.execute([pending(row(1))], 0)
        await settle()
        if crash:
            await worker.crash()
        instance.close()
        await settle()
        worker.close()
        assert len(worker.link.stopped) == 1
    del worker, instance
    assert open_descriptors() == before


# ── taking over ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def asked_to_reset(worker: FakeWorker) -> int:
    """The number of the Reset it got."""
    await settle()
    assert worker.batches == []
    (number,) = worker.resets
    return number


async def test_what_another_gateway_asked_for_is_dropped(worker: FakeWorker) -> None:
    """A batch's answer, and that to a Reset of a gateway that crashed before it came."""
    taking = asyncio.ensure_future(worker.instance.take_over(5))
    number = await asked_to_reset(worker)
    worker.send(Done(1, (), (), 0, 1, 2, 3))
    worker.send(BatchFailed(2, "too late"))
    worker.send(Ready(b"{}", 1, 0))
    worker.send(Ready(b"{}", 1, number - 1))
    await settle()
    assert not taking.done()
    worker.send(Ready(b'{"name":"m"}', 1, number))
    assert (await taking).config_json == b'{"name":"m"}'
    instance = worker.instance
    assert (instance.idle, instance.can_take, told(worker).failed) == (True, True, [])
    instance.execute([pending(row(1), id="a")], 0)
    await worker.answer()
    assert told(worker).values == [[1]]


async def test_numbers_of_resets_differ(worker: FakeWorker) -> None:
    other = FakeWorker()
    for one in (worker, other):
        with pytest.raises(LoadFailed, match=r"its last batch takes longer than 0.01 s"):
            await one.instance.take_over(0.01)
    assert await asked_to_reset(worker) != await asked_to_reset(other)
    other.instance.close()
    other.close()


async def test_a_worker_that_ends_while_it_is_taken_over(worker: FakeWorker) -> None:
    taking = asyncio.ensure_future(worker.instance.take_over(5))
    await settle()
    worker.send(Done(1, (), (), 0, 1, 2, 3))
    await worker.crash()
    with pytest.raises(LoadFailed, match="the worker process ended: killed by SIGKILL"):
        await taking


async def test_a_worker_that_is_taken_over_and_ends_at_once_has_no_slabs() -> None:
    before = open_descriptors()
    worker = FakeWorker()
    taking = asyncio.ensure_future(worker.instance.take_over(5))
    worker.send(Ready(b"{}", 1, await asked_to_reset(worker)))
    await worker.crash()
    await taking
    assert not worker.instance.can_take
    del worker, taking
    assert open_descriptors() == before
