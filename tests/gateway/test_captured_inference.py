"""What is noted of a request whose turn it is, whatever becomes of it; and that it goes on whatever becomes of that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from captured import Line, config, rule, settings, tensors_of
from pending import Heard, joined
from penstock.capture.capture import Capture
from penstock.capture.counts import CaptureCounts, Lost, Skipped
from penstock.capture.messages import Record, SequencePlace
from penstock.errors import InvalidRequest, ModelFailed, PenstockError, QueueFull
from penstock.gateway.captured_inference import CapturedInference
from penstock.gateway.client_memory import Wrapped, unwrapped
from penstock.gateway.inference import Bound
from penstock.model_config import ModelConfig
from penstock.repository.signature import Signature
from penstock.types import CallTerms, InferHeader, OutputTensor, SequenceTerms, TensorSpec
from penstock.workers.request import Answer, Part, PendingRequest

X = np.array([1, 2, 3], np.float32)
TERMS = CallTerms(tenant="team")


class Pool:
    """Takes requests, which the test answers."""

    def __init__(self) -> None:
        self.requests: list[PendingRequest] = []
        self.refuses: PenstockError | None = None
        self.cancelled: list[PendingRequest] = []

    def submit(self, request: PendingRequest) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.requests.append(request)

    def submit_at_once(self, request: PendingRequest) -> None:
        self.submit(request)

    def cancel(self, request: PendingRequest) -> None:
        self.cancelled.append(request)


class Bench:
    """An inference of one model, and where its records come."""

    def __init__(self, model: ModelConfig, **fields: Any) -> None:
        self.line, self.pool, self.heard = Line(), Pool(), Heard()
        self.counts = CaptureCounts()
        given = settings(Path("/lake"), rule(**fields), max_record_bytes=1000)
        repository: Any = SimpleNamespace(generation=1)
        memory: Any = None
        self.inference = CapturedInference(repository, memory, None)
        self.inference.capture = Capture(given, self.line, self.counts)
        self.model: Any = SimpleNamespace(
            name="m",
            version=3,
            config=model,
            signature=Signature(model),
            timeout_us=None,
            digest_text="sha256:d",
        )

    def bound(self, *specs: TensorSpec, **parameters: Any) -> Bound:
        header = InferHeader("m", "", specs, (), parameters)
        return Bound(header, self.model, self.model.signature.plan(header), 1, False, self.pool)

    def submit(
        self, bound: Bound | None = None, *buffers: bytes, encode: Any = joined
    ) -> PendingRequest:
        bound = bound or self.bound(TensorSpec("X", "FP32", (3,)))
        data = list(buffers) or [X.tobytes()]
        return self.inference.submit(bound, "r-1", data, encode, self.heard, 40, TERMS)

    def answer(self, request: PendingRequest, *outputs: OutputTensor) -> None:
        request.finish(request.encode(request, list(outputs)))

    @property
    def record(self) -> Record:
        (only,) = self.line.records
        return only


@pytest.fixture
def bench() -> Callable[..., Bench]:
    """`bench(model, **fields of the rule)`."""
    return lambda model=None, **fields: Bench(model or config(), **fields)


def output(name: str = "Y", *values: Any) -> OutputTensor:
    data = np.array(values, np.float32).tobytes()
    return OutputTensor(name, "FP32", (len(values),), data)


def test_what_went_in_and_what_came_out(bench: Callable[..., Bench]) -> None:
    at = bench()
    request = at.submit()
    assert at.line.records == []
    at.answer(request, output("Y", 4, 5))
    assert at.heard.by_id == {"r-1": output("Y", 4, 5).data}
    found = at.record
    assert (found.request_id, found.tenant, found.outcome, found.digest) == (
        "r-1",
        "team",
        "ok",
        "sha256:d",
    )
    (x,) = found.inputs
    ((y,),) = found.responses
    assert x is not None and (x.shape, bytes(x.data)) == ((3,), X.tobytes())
    assert y is not None and (y.shape, bytes(y.data)) == ((2,), output("Y", 4, 5).data)
    assert found.duration_us >= 0 and found.sequence is None


def test_views_are_copied_while_they_are_valid(bench: Callable[..., Bench]) -> None:
    at = bench()
    slab = bytearray(output("Y", 4).data)
    view = OutputTensor("Y", "FP32", (1,), memoryview(slab))
    request = at.submit()
    at.answer(request, view)
    slab[:] = b"\0" * 4
    ((y,),) = at.record.responses
    assert y is not None and bytes(y.data) == output("Y", 4).data


def test_who_looks_for_the_encoder_finds_it(bench: Callable[..., Bench]) -> None:
    request = bench().submit()
    assert isinstance(request.encode, Wrapped)
    assert unwrapped(request.encode) is joined


def test_errors_are_outcomes_and_their_texts_are_not_kept(bench: Callable[..., Bench]) -> None:
    at = bench()
    at.submit().finish(ModelFailed("of PLANTED"))
    assert (at.record.outcome, at.record.responses) == ("ModelFailed", [])
    assert at.record.inputs[0] is not None
    assert "PLANTED" not in repr(at.record)


def test_an_output_that_its_encoder_refuses(bench: Callable[..., Bench]) -> None:
    at = bench()

    def refuse(request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        raise InvalidRequest("too large for JSON")

    request = at.submit(encode=refuse)
    with pytest.raises(InvalidRequest):
        request.encode(request, [output("Y", 1)])
    request.finish(InvalidRequest("too large for JSON"))
    assert at.record.outcome == "InvalidRequest"


def test_refused_requests(bench: Callable[..., Bench]) -> None:
    at = bench()
    at.pool.refuses = QueueFull("full")
    with pytest.raises(QueueFull):
        at.submit()
    assert (at.record.outcome, at.heard.answers) == ("QueueFull", [])
    assert at.record.inputs[0] is not None


def test_malformed_ones_are_none(bench: Callable[..., Bench]) -> None:
    at = bench()
    with pytest.raises(InvalidRequest, match="byte size mismatch"):
        at.submit(None, b"12")
    assert at.line.records == []


def test_several_responses(bench: Callable[..., Bench]) -> None:
    at = bench()
    request = at.submit()
    for value in (1, 2):
        request.encode(request, [output("Y", value)])
    request.finish(b"")
    assert [len(each) for each in at.record.responses] == [1, 1]
    # and none at all
    at.submit().finish(b"")
    assert at.line.records[1].responses == []


def test_an_error_among_several_responses(bench: Callable[..., Bench]) -> None:
    at = bench()
    parts: list[Part] = []
    sink: Any = SimpleNamespace(part=lambda request, part: parts.append(part))
    bound = at.bound(TensorSpec("X", "FP32", (3,)))
    request = at.inference.submit(bound, "r-1", [X.tobytes()], joined, at.heard, 40, TERMS, sink)
    assert request.sink is not None
    part = Part(ModelFailed("of PLANTED"), {}, True, lambda: None)
    request.sink.part(request, part)
    request.finish(b"")
    assert (at.record.outcome, parts) == ("ModelFailed", [part])


def test_inputs_that_are_left_out_and_outputs_that_nobody_asked_for(
    bench: Callable[..., Bench],
) -> None:
    model = config(
        input=(tensors_of(A="FP32")[0], tensors_of(X="FP32")[0]),
        output=tensors_of(Y="FP32", Z="FP32"),
    )
    model = ModelConfig(
        name="m",
        input=tuple(
            type(each)(each.name, each.data_type, each.dims, optional=True) for each in model.input
        ),
        output=model.output,
    )
    at = bench(model)
    at.answer(at.submit(), output("Z", 9))
    a, x = at.record.inputs
    ((y, z),) = at.record.responses
    assert a is None and y is None
    assert x is not None and z is not None and bytes(z.data) == output("Z", 9).data


def test_inputs_in_another_order(bench: Callable[..., Bench]) -> None:
    at = bench(config(input=tensors_of(A="FP32", X="FP32")))
    bound = at.bound(TensorSpec("X", "FP32", (3,)), TensorSpec("A", "FP32", (1,)))
    one = np.array([7], np.float32).tobytes()
    at.answer(at.submit(bound, X.tobytes(), one), output("Y", 1))
    a, x = at.record.inputs
    assert a is not None and x is not None
    assert (bytes(a.data), bytes(x.data)) == (one, X.tobytes())


def test_only_what_the_rule_names(bench: Callable[..., Bench]) -> None:
    at = bench(tensors=("Y",))
    at.answer(at.submit(), output("Y", 1))
    assert (at.record.inputs, len(at.record.responses[0])) == ([], 1)


def test_sequences(bench: Callable[..., Bench]) -> None:
    at = bench()
    bound = at.bound(TensorSpec("X", "FP32", (3,)))
    plan: Any = SimpleNamespace(
        **{name: getattr(bound.plan, name) for name in bound.plan.__struct_fields__}
    )
    plan.sequence = SequenceTerms(7, True, False)
    at.answer(at.submit(replace(bound, plan=plan)), output("Y", 1))
    assert at.record.sequence == SequencePlace("7", True, False)


@pytest.mark.parametrize("where", ["input", "output", "responses", "many small ones"])
def test_what_is_too_large_is_counted_and_answered(bench: Callable[..., Bench], where: str) -> None:
    at = bench()
    large = np.zeros(300, np.float32)
    if where == "input":
        request = at.submit(at.bound(TensorSpec("X", "FP32", (300,))), large.tobytes())
        at.answer(request, output("Y", 1))
    elif where == "output":
        at.answer(at.submit(), output("Y", *large))
    else:
        request = at.submit()
        for _ in range(10):
            each = large[: 100 if where == "responses" else 1]
            request.encode(request, [output("Y", *each)])
        request.finish(b"")
    assert at.line.records == []
    assert at.counts.skipped[Skipped.TOO_LARGE] == 1
    assert len(at.heard.answers) == 1


def test_clients_that_say_no(bench: Callable[..., Bench]) -> None:
    at = bench()
    at.answer(at.submit(at.bound(TensorSpec("X", "FP32", (3,)), capture=False)), output("Y", 1))
    assert at.line.records == [] and len(at.heard.answers) == 1
    assert at.counts.skipped[Skipped.OPTED_OUT] == 1


def test_requests_whose_turn_it_is_not_are_as_they_were(bench: Callable[..., Bench]) -> None:
    at = bench(sample=1e-12)
    request = at.submit()
    assert (request.encode, request.respond, request.queue) == (joined, at.heard, at.pool)
    assert at.counts.sampled == 0
    other = bench(models=("another",))
    assert other.submit().encode is joined


def test_one_that_is_cancelled_leaves_the_queue(bench: Callable[..., Bench]) -> None:
    at = bench()
    request = at.submit()
    request.cancel()
    assert at.pool.cancelled == [request]


@pytest.mark.parametrize("fails", ["_note_inputs", "_note_outputs", "put"])
def test_no_request_is_lost_by_a_bug(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    target = "penstock.gateway.captured_inference.Notes" if fails != "put" else "captured.Line"
    monkeypatch.setattr(f"{target}.{fails}", broken)
    at = bench()
    at.answer(at.submit(), output("Y", 4))
    answers: dict[str, Answer] = at.heard.by_id
    assert answers == {"r-1": output("Y", 4).data}
    assert at.counts.lost[Lost.ERROR] == 1
