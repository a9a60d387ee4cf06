"""The worker's step in this process, over a real channel and slab, with a model made for the occasion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from descriptors import open_descriptors
from pending import pending
from penstock import model_config
from penstock.backends.base import Batch, LoadSpec, Outputs, line_of
from penstock.errors import (
    InvalidRequest,
    LoadFailed,
    ModelFailed,
    PayloadTooLarge,
    PenstockError,
    Unavailable,
)
from penstock.wording import MAX_REASON, shortened
from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.gather import gather, scatter
from penstock.workers.message_parts import RequestError
from penstock.workers.request import PendingRequest
from penstock.workers.slab import PAGE_BYTES, Slab
from penstock.workers.worker import Worker
from penstock.workers.worker_commands import (
    AttachSlab,
    Cancel,
    DetachSlab,
    Load,
    Reset,
    WorkerCommand,
)
from penstock.workers.worker_events import (
    BatchFailed,
    Done,
    DoneWithParameters,
    LoadRefused,
    Ready,
    WorkerEvent,
    decode_worker_event,
)

CONFIG: dict[str, Any] = {
    "name": "m",
    "max_batch_size": 8,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
}
Answer = Outputs | Sequence[Outputs | PenstockError]


class Model:
    """Doubles its input, or does what it is told."""

    def __init__(self) -> None:
        self.config = CONFIG
        self.live = False
        self.fallback = ""
        self.spec: LoadSpec | None = None
        self.batches: list[Batch] = []
        self.closed = 0
        self.run: Callable[[Batch], Answer] = lambda batch: {"Y": batch.inputs["X"] * 2}

    def execute(self, batch: Batch) -> Answer:
        self.batches.append(batch)
        return self.run(batch)

    def close(self) -> None:
        self.closed += 1


class Bench:
    """A worker, and the gateway's end of its channel."""

    def __init__(self) -> None:
        self.model = Model()
        self.refuse: Exception | None = None
        self.gateway, theirs = Channel.pair()
        self.worker = Worker(theirs, self._load)
        self.slab = Slab.create(PAGE_BYTES)
        self._theirs = theirs

    def _load(self, spec: LoadSpec) -> Model:
        self.model.spec = spec
        if self.refuse is not None:
            raise self.refuse
        return self.model

    def step(self, command: WorkerCommand, *descriptors: int) -> WorkerEvent:
        """One command and its answer."""
        self.gateway.send(command, descriptors)
        self.worker.step()
        event: WorkerEvent = decode_worker_event(self.gateway.receive()[0])
        return event

    def loaded(self) -> Bench:
        """With its model and slab 0."""
        assert isinstance(self.step(load()), Ready)
        self.gateway.send(AttachSlab(0), (self.slab.fd,))
        self.worker.step()
        return self

    def run(self, requests: Sequence[PendingRequest], batch: int = 1) -> WorkerEvent:
        """Gather these requests and have them run."""
        return self.step(gather(batch, 0, self.slab, requests))

    def close(self) -> None:
        self.gateway.close()
        self._theirs.close()
        self.slab.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def load() -> Load:
    return Load("m", 3, "/models/m", b'{"name":"m"}', "m_1", "cpu", 2)


def request(*values: float) -> PendingRequest:
    return pending({"X": np.array([values], np.float32)}, id="r")


def test_loading_tells_the_backend_all_and_gives_the_complete_configuration(bench: Bench) -> None:
    event = bench.step(load())
    assert isinstance(event, Ready)
    assert model_config.from_json(event.config_json) == CONFIG
    assert event.load_us >= 0
    spec = bench.model.spec
    assert spec is not None
    assert (spec.model_name, spec.version, spec.device, spec.threads) == ("m", 3, "cpu", 2)
    assert (str(spec.version_dir), spec.config) == ("/models/m/3", {"name": "m"})


def test_why_a_load_is_refused_keeps_its_start_and_its_end(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has all of it, for what the gateway is told of is shown again and again."""
    text = f"can't load it: {'frame, ' * 2000}KeyError: 'w'"
    bench.refuse = LoadFailed(text)
    refused = bench.step(load())
    assert isinstance(refused, LoadRefused)
    assert len(refused.reason) == MAX_REASON
    assert refused.reason.startswith("can't load it: frame")
    assert refused.reason.endswith("KeyError: 'w'")
    assert text in caplog.text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LoadFailed("no weights in /models/m"), "no weights in /models/m"),
        (ValueError("bad\nweights"), "ValueError: bad weights"),
        (MemoryError(), "out of memory"),
    ],
)
def test_a_load_that_is_refused(
    bench: Bench, error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.refuse = error
    assert bench.step(load()) == LoadRefused(reason)


def test_a_model_without_a_usable_configuration(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.model.config = {"max_batch_size": 8}
    event = bench.step(load())
    assert isinstance(event, LoadRefused)
    assert "name" in event.reason


def test_a_batch_is_run_and_answered(bench: Bench) -> None:
    requests = [request(1, 2), request(3, 4)]
    done = bench.loaded().run(requests, batch=9)
    assert isinstance(done, Done)
    assert (done.batch, done.errors, done.slab_bytes) == (9, (), PAGE_BYTES)
    assert min(done.input_ns, done.infer_ns, done.output_ns) >= 0
    values = []
    for outputs in scatter(bench.slab, done, requests):
        assert isinstance(outputs, list)
        values.append(np.frombuffer(outputs[0].data, np.float32).tolist())
    assert values == [[2, 4], [6, 8]]
    (batch,) = bench.model.batches
    assert [(info.rows, info.id) for info in batch.requests] == [(1, "r"), (1, "r")]


def test_inputs_can_be_changed_in_place(bench: Bench) -> None:
    def in_place(batch: Batch) -> Answer:
        array = batch.inputs["X"]
        array += 1
        return {"Y": array}

    bench.loaded().model.run = in_place
    done = bench.run([request(1)])
    assert isinstance(done, Done)
    (outputs,) = scatter(bench.slab, done, [request(1)])
    assert isinstance(outputs, list)
    assert np.frombuffer(outputs[0].data, np.float32).tolist() == [2]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (ModelFailed("as I\nsaid"), "as I said"),
        (Unavailable("no memory"), "no memory"),
        (RuntimeError("x" * 5000), shortened("RuntimeError: " + "x" * 5000)),
    ],
)
def test_an_error_in_the_model_fails_the_batch_and_not_the_worker(
    bench: Bench, error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Batch) -> Answer:
        raise error

    bench.loaded().model.run = fail
    assert bench.run([request(1)], batch=5) == BatchFailed(5, reason)
    bench.model.run = lambda batch: {"Y": batch.inputs["X"]}
    assert isinstance(bench.run([request(1)], batch=6), Done)


def test_an_answer_that_contradicts_the_configuration(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.loaded().model.run = lambda batch: {"Y": np.zeros((7, 1), np.float32)}
    event = bench.run([request(1)])
    assert isinstance(event, BatchFailed)
    assert "expected a first dimension of 1" in event.reason


def test_one_request_of_a_batch_may_fail(bench: Bench) -> None:
    bench.loaded().model.run = lambda batch: [
        {"Y": batch.inputs["X"][:1]},
        ModelFailed("not this one"),
    ]
    done = bench.run([request(1), request(2)])
    assert isinstance(done, Done)
    assert done.errors == (RequestError(1, "not this one"),)
    assert [(slot.first, slot.count) for slot in done.outputs] == [(0, 1)]


def test_a_live_model_gives_parameters_and_sees_cancellations(bench: Bench) -> None:
    seen: list[bool] = []

    def run(batch: Batch) -> Answer:
        for request in batch.requests:
            line = line_of(request)
            assert line is not None
            seen.append(line.is_cancelled())
            if request.id == "told":
                line.parameters = {"n": 5}
        return {"Y": batch.inputs["X"]}

    bench.model.live = True
    bench.loaded().model.run = run
    requests = [request(1), pending({"X": np.array([[2.0]], np.float32)}, id="told")]
    done = bench.run(requests)
    assert isinstance(done, DoneWithParameters)
    assert done.parameters == ((1, {"n": 5}),)
    bench.gateway.send(Cancel(2, 1))
    done = bench.run([request(1), request(2)], batch=2)
    assert type(done) is Done
    # said of what is over, and would be forgotten by the batch that gets its number again
    bench.gateway.send(Cancel(1, 0))
    bench.run([request(1), request(2)], batch=3)
    assert seen == [False, False, False, True, False, False]


def test_the_kind_of_an_error_arrives_with_it(bench: Bench) -> None:
    answers = [Unavailable("later"), InvalidRequest("never"), PayloadTooLarge("no model's")]
    bench.loaded().model.run = lambda batch: answers
    requests = [request(1), request(2), request(3)]
    done = bench.run(requests)
    assert isinstance(done, Done)
    found = scatter(bench.slab, done, requests)
    assert [(type(error), str(error)) for error in found] == [
        (Unavailable, "later"),
        (InvalidRequest, "never"),
        (ModelFailed, "no model's"),
    ]


def test_the_slab_grows_on_either_side(bench: Bench) -> None:
    bench.loaded().model.run = lambda batch: {"Y": np.tile(batch.inputs["X"], 4)}
    large = pending({"X": np.ones((1, 2 * PAGE_BYTES), np.float32)})
    done = bench.run([large])
    assert isinstance(done, Done)
    assert done.slab_bytes > bench.slab.size_bytes
    bench.slab.refresh()
    assert done.slab_bytes == bench.slab.size_bytes
    (outputs,) = scatter(bench.slab, done, [large])
    assert isinstance(outputs, list)
    assert (np.frombuffer(outputs[0].data, np.float32) == 1).all()


def test_a_command_too_large_for_a_datagram(bench: Bench) -> None:
    many = [request(n) for n in range(2000)]
    bench.loaded().model.config = CONFIG
    bench.model.run = lambda batch: [{"Y": batch.inputs["X"][:1, :1]} for _ in batch.requests]
    done = bench.run(many)
    assert isinstance(done, Done)
    assert [(slot.first, slot.count) for slot in done.outputs] == [(0, 2000)]


def test_the_gateways_end_is_told_and_the_model_closed_once(bench: Bench) -> None:
    bench.loaded().gateway.close()
    with pytest.raises(ChannelClosed):
        bench.worker.step()
    bench.worker.close()
    bench.worker.close()
    assert bench.model.closed == 1


def test_a_slab_that_is_not_needed_any_more_is_unmapped(bench: Bench) -> None:
    bench.loaded()
    before = open_descriptors()
    bench.gateway.send(AttachSlab(7), (bench.slab.fd,))
    bench.gateway.send(DetachSlab(7))
    bench.worker.step()
    assert open_descriptors() > before
    bench.worker.step()
    assert open_descriptors() == before


def test_another_gateway_begins_with_new_slabs(bench: Bench) -> None:
    """What came before is still answered; then the old slabs are given back, and the model stays."""
    bench.loaded()
    before = len(open_descriptors())
    bench.gateway.send(AttachSlab(1), (bench.slab.fd,))
    bench.gateway.send(gather(7, 0, bench.slab, [request(1)]))
    for _ in range(2):
        bench.worker.step()
    assert len(open_descriptors()) > before
    # views that a model keeps keep their mapping
    bench.model.batches.clear()
    assert isinstance(decode_worker_event(bench.gateway.receive()[0]), Done)
    ready = bench.step(Reset(99))
    assert isinstance(ready, Ready)
    assert (ready.number, model_config.from_json(ready.config_json)) == (99, CONFIG)
    bench.gateway.send(AttachSlab(0), (bench.slab.fd,))
    bench.worker.step()
    assert len(open_descriptors()) == before
    assert isinstance(bench.run([request(1)]), Done)
    assert bench.model.closed == 0


# ── on a GPU ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Pinned:
    """In CUDA's place."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}

    def register(self, address: int, nbytes: int) -> None:
        self.sizes[address] = nbytes

    def unregister(self, address: int) -> None:
        del self.sizes[address]


def load_on(bench: Bench, device: str, fallback: str) -> tuple[Ready, Pinned]:
    """Load there, and attach a slab."""
    pinned = Pinned()
    bench.worker = Worker(
        bench._theirs,
        bench._load,
        find_registrar=lambda: pinned,
    )
    bench.model.fallback = fallback
    ready = bench.step(msgspec.structs.replace(load(), device=device))
    assert isinstance(ready, Ready)
    bench.gateway.send(AttachSlab(0), (bench.slab.fd,))
    bench.worker.step()
    return ready, pinned


def test_slabs_of_a_model_on_a_gpu_are_pinned(bench: Bench) -> None:
    ready, pinned = load_on(bench, "cuda:3", "")
    assert ready.fallback == ""
    assert list(pinned.sizes.values()) == [PAGE_BYTES]
    # more outputs than the slab holds
    bench.model.run = lambda batch: {"Y": np.zeros((1, PAGE_BYTES), np.float32)}
    done = bench.run([request(1)])
    assert isinstance(done, Done)
    assert list(pinned.sizes.values()) == [done.slab_bytes]
    bench.gateway.send(DetachSlab(0))
    bench.worker.step()
    assert pinned.sizes == {}


@pytest.mark.parametrize(("device", "fallback"), [("cpu", ""), ("cuda:0", "no TensorRT")])
def test_those_of_others_are_not(bench: Bench, device: str, fallback: str) -> None:
    ready, pinned = load_on(bench, device, fallback)
    assert (ready.fallback, pinned.sizes) == (fallback, {})
    again = bench.step(Reset(7))
    assert again == msgspec.structs.replace(ready, number=7)
