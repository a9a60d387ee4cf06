"""Responses of decoupled models on their way out of a worker: how many, in which order, until when."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from penstock.backends.base import Batch, Stream, stream_of
from penstock.errors import InvalidRequest, ModelFailed, Unavailable
from penstock.types import Array
from penstock.workers.streams import WINDOW_BYTES, WINDOW_RESPONSES
from penstock.workers.worker_commands import AttachSlab, Reset
from penstock.workers.worker_events import Executed, Ready
from stream_bench import Bench, y
from supervised import eventually

CLOSED = "Unable to send response. Response sender has been closed."


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def kept(bench: Bench, requests: int = 1) -> list[Stream]:
    """The streams of a batch that was executed, and whose model keeps them."""
    streams: list[Stream] = []
    executed = threading.Event()

    def run(batch: Batch) -> Any:
        streams.extend(map(stream_of, batch.requests))
        executed.set()
        return ()

    bench.model.run = run
    bench.execute(*range(requests))
    assert bench.told(1) == ["executed"]
    assert executed.wait(60)
    return streams


def in_thread(bench: Bench, stream: Stream, *sends: Any) -> Future[None]:
    """Send these, and then the final response, in a thread."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            for outputs in sends:
                stream.send(outputs)
            stream.send(None, final=True)
        except Exception as error:  # noqa: BLE001 - it is the test's to look at
            future.set_exception(error)
        else:
            future.set_result(None)

    bench.start(run)
    return future


def test_responses_come_in_order_and_the_final_one_last(bench: Bench) -> None:
    def answer(stream: Stream, x: Array) -> None:
        stream.send({"Y": x})
        stream.send({"Y": x + 1}, {"token": 7, "why": "stop"})
        stream.send({"Y": x + 2}, final=True)

    bench.model.each(answer)
    batch = bench.execute(5)
    first, second, third = bench.response(), bench.response(), bench.response()
    assert [r.final for r in (first, second, third)] == [False, False, True]
    assert second.parameters == {"token": 7, "why": "stop"}
    assert (first.batch, first.request, first.error) == (batch, 0, None)
    assert second.outputs is not None
    (output,) = second.outputs
    assert (output.name, output.datatype, output.shape) == ("Y", "FP32", (1, 1))
    assert np.frombuffer(output.data, np.float32).tolist() == [6]
    assert min(second.infer_ns, second.output_ns) >= 0
    executed = bench.next()
    assert isinstance(executed, Executed)
    assert executed.batch == batch


def test_no_response_at_all_and_responses_of_any_rows(bench: Bench) -> None:
    bench.model.each(lambda stream, x: stream.send(None, final=True))
    bench.execute(1)
    assert bench.told(2) == [(0, "final"), "executed"]
    bench.model.each(lambda stream, x: stream.send({"Y": np.tile(x, (3, 2))}, final=True))
    bench.execute(1)
    assert bench.told(2) == [(0, 1, 1, 1, 1, 1, 1, "final"), "executed"]


def test_each_request_of_a_batch_has_its_own(bench: Bench) -> None:
    def run(batch: Batch) -> Any:
        first, second = map(stream_of, batch.requests)
        second.send(y(2))
        first.send(y(1), final=True)
        second.send(InvalidRequest("enough"), final=True)
        return ()

    bench.model.run = run
    bench.execute(1, 2)
    assert bench.told(4) == [(1, 2), (0, 1, "final"), (1, "enough", "final"), "executed"]


def test_threads_go_on_after_execute_with_inputs_that_stay_valid(bench: Bench) -> None:
    """The next batch is gathered into the same slab meanwhile."""
    inputs: list[Array] = []
    streams: list[Stream] = []

    def run(batch: Batch) -> Any:
        inputs.append(batch.inputs["X"])
        streams.append(stream_of(batch.requests[0]))
        return ()

    bench.model.run = run
    for value in (3, 4):
        bench.execute(value)
        assert bench.told(1) == ["executed"]
    for stream, x in zip(streams, inputs, strict=True):
        in_thread(bench, stream, {"Y": x * 10}).result(60)
    assert bench.told(4) == [(0, 30), (0, "final"), (0, 40), (0, "final")]


def test_a_large_response(bench: Bench) -> None:
    large = np.arange(1 << 20, dtype=np.float32).reshape(1, -1)
    bench.model.each(lambda stream, x: stream.send({"Y": large[:, ::2]}, final=True))
    bench.execute(1)
    outputs = bench.response().outputs
    assert outputs is not None
    (output,) = outputs
    assert bytes(output.data) == large[:, ::2].tobytes()


# ── what is wrong ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({"Z": np.zeros((1, 1), np.float32)}, "gave output 'Z', its outputs are: Y"),
        ({"Y": np.zeros((1, 1))}, "the configuration says FP32, the model gave FP64"),
        ({"Y": np.float32(1).reshape(())}, r"expected a first dimension, the model gave shape \[]"),
        ({"Y": np.zeros((1, 1, 1), np.float32)}, "the configuration says dims"),
    ],
)
def test_a_response_that_contradicts_the_configuration(
    bench: Bench, outputs: dict[str, Array], reason: str
) -> None:
    def answer(stream: Stream, x: Array) -> None:
        stream.send(outputs)
        stream.send(y(1), final=True)

    bench.model.each(answer)
    bench.execute(1)
    error = bench.response().error
    assert error is not None
    with pytest.raises(ModelFailed, match=reason):
        raise ModelFailed(error.reason)
    assert bench.told(2) == [(0, 1, "final"), "executed"]


def test_nothing_is_sent_after_the_final_response(bench: Bench) -> None:
    (stream,) = kept(bench)
    stream.send(None, final=True)
    for final in (False, True):
        with pytest.raises(ModelFailed, match=CLOSED):
            stream.send(y(1), final=final)
    stream.fail(ModelFailed("too late"))
    assert bench.told(1) == [(0, "final")]


DROPPED = "model 'm' dropped a request without its final response"


def test_a_stream_that_is_dropped_ends_with_an_error(bench: Bench) -> None:
    streams = kept(bench, 2)
    streams[1].send(y(1))
    # the model's own way of keeping them
    bench.model.run = lambda batch: ()
    del streams[0]
    assert bench.told(2) == [(1, 1), (0, DROPPED, "final")]
    streams.clear()
    assert bench.told(1) == [(1, DROPPED, "final")]


def test_requests_that_nobody_asks_for_end_with_an_error(bench: Bench) -> None:
    bench.execute(1, 2)
    expected = [(0, DROPPED, "final"), (1, DROPPED, "final"), "executed"]
    assert sorted(map(str, bench.told(3))) == sorted(map(str, expected))


def test_an_error_of_execute_ends_what_has_not_ended(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def run(batch: Batch) -> Any:
        first, second, _ = map(stream_of, batch.requests)
        first.send(y(1), final=True)
        second.send(y(2))
        raise ZeroDivisionError("by zero")

    bench.model.run = run
    bench.execute(1, 2, 3)
    text = "ZeroDivisionError: by zero"
    expected = [(0, 1, "final"), (1, 2), (1, text, "final"), (2, text, "final"), "executed"]
    assert bench.told(5) == expected


def test_a_decoupled_model_returns_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.model.run = lambda batch: [y(1)]
    bench.execute(1)
    text = "model 'm' is decoupled, and returned something"
    assert bench.told(2) == [(0, text, "final"), "executed"]


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_sends_too_much_waits_until_its_client_has_taken_some(bench: Bench) -> None:
    (stream,) = kept(bench)
    sent = in_thread(bench, stream, *[y(n) for n in range(WINDOW_RESPONSES + 3)])
    assert bench.told(WINDOW_RESPONSES) == [(0, n) for n in range(WINDOW_RESPONSES)]
    bench.taken(1, 1, 4)
    assert bench.told(1) == [(0, WINDOW_RESPONSES)]
    assert not sent.done()
    bench.taken(1, 2, 8)
    assert bench.told(2) == [(0, WINDOW_RESPONSES + 1), (0, WINDOW_RESPONSES + 2)]
    # the end needs no room
    assert bench.told(1) == [(0, "final")]
    sent.result(60)


def test_bytes_are_bounded_too(bench: Bench) -> None:
    (stream,) = kept(bench)
    half = {"Y": np.zeros((1, WINDOW_BYTES // 8), np.float32)}
    sent = in_thread(bench, stream, half, half, half)
    for _ in range(2):
        bench.response()
    bench.taken(1, 1, 0)
    assert not sent.done()
    bench.taken(1, 0, WINDOW_BYTES // 2)
    bench.response()
    assert bench.told(1) == [(0, "final")]


def test_execute_itself_waits_and_what_comes_meanwhile_is_kept(bench: Bench) -> None:
    """The main loop's thread reads what lets it go on, and the next command is still run."""

    def answer(stream: Stream, x: Array) -> None:
        for n in range(WINDOW_RESPONSES + 1):
            stream.send(y(n))
        stream.send(None, final=True)

    bench.model.each(answer)
    bench.execute(1)
    bench.told(WINDOW_RESPONSES)
    bench.execute(2)
    bench.taken(1, 1, 4)
    assert bench.told(3) == [(0, WINDOW_RESPONSES), (0, "final"), "executed"]
    assert len(bench.told(WINDOW_RESPONSES)) == WINDOW_RESPONSES
    bench.taken(2, WINDOW_RESPONSES, 0)
    assert bench.told(3) == [(0, WINDOW_RESPONSES), (0, "final"), "executed"]


def test_one_slow_client_does_not_stop_the_others(bench: Bench) -> None:
    slow, quick = kept(bench, 2)
    in_thread(bench, slow, *[y(n) for n in range(WINDOW_RESPONSES + 1)])
    bench.told(WINDOW_RESPONSES)
    in_thread(bench, quick, y(5)).result(60)
    assert bench.told(2) == [(1, 5), (1, "final")]
    bench.cancel(1, 0)
    assert bench.told(1) == [(0, "final")]


def test_several_threads_of_one_stream(bench: Bench) -> None:
    (stream,) = kept(bench)

    def send_some(first: int) -> None:
        for n in range(10):
            stream.send(y(first + n))

    for first in range(0, 60, 10):
        bench.start(lambda first=first: send_some(first))  # type: ignore[misc]
    events = bench.told(60)
    assert sorted(value for _, value in events) == list(range(60))


# ── cancellations ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cancelled_stream_sends_nothing_but_its_end(bench: Bench) -> None:
    (stream,) = kept(bench)
    assert not stream.is_cancelled()
    bench.cancel(1)
    eventually(stream.is_cancelled, "not told")
    stream.send(y(1))
    stream.send(ModelFailed("nobody hears it"), final=True)
    assert bench.told(1) == [(0, "final")]
    with pytest.raises(ModelFailed, match=CLOSED):
        stream.send(None, final=True)


def test_who_waits_is_let_go_by_a_cancellation(bench: Bench) -> None:
    (stream,) = kept(bench)
    sent = in_thread(bench, stream, *[y(n) for n in range(200)])
    bench.told(WINDOW_RESPONSES)
    bench.cancel(1)
    assert bench.told(1) == [(0, "final")]
    sent.result(60)


def test_a_cancelled_stream_that_is_dropped_has_an_end_too(bench: Bench) -> None:
    streams = kept(bench)
    bench.cancel(1)
    eventually(streams[0].is_cancelled, "not told")
    bench.model.run = lambda batch: ()
    streams.clear()
    assert bench.told(1) == [(0, "final")]


def test_a_request_that_is_cancelled_before_its_turn(bench: Bench) -> None:
    """The message is read while another batch runs."""
    seen: list[bool] = []
    runs = threading.Event()

    def answer(stream: Stream, x: Array) -> None:
        if x[0, 0] == 1:
            runs.set()
            while not stream.is_cancelled():
                pass
        seen.append(stream.is_cancelled())
        stream.send(y(1), final=True)

    bench.model.each(answer)
    bench.execute(1)
    # the bench has one slab: what is in it must have been read
    assert runs.wait(60)
    bench.execute(2)
    bench.cancel(2)
    bench.cancel(1)
    assert bench.told(4) == [(0, "final"), "executed"] * 2
    assert seen == [True, True]


def test_what_is_said_of_a_request_that_has_ended_is_nothing(bench: Bench) -> None:
    (stream,) = kept(bench)
    stream.send(None, final=True)
    bench.cancel(1)
    bench.taken(1, 3, 3)
    bench.model.each(lambda stream, x: stream.send({"Y": x}, final=True))
    bench.execute(7)
    assert bench.told(3) == [(0, "final"), (0, 7, "final"), "executed"]


# ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_error_lets_go_a_thread_that_waits(bench: Bench) -> None:
    """Once the gateway has answered it, as it does."""
    (stream,) = kept(bench)
    sent = in_thread(bench, stream, *[y(n) for n in range(200)])
    bench.told(WINDOW_RESPONSES)
    stream.fail(Unavailable("no more"))
    assert bench.told(1) == [(0, "no more", "final")]
    bench.taken(1, 0, 0)
    with pytest.raises(ModelFailed, match=CLOSED):
        sent.result(60)


def test_who_waits_hears_of_the_end_of_the_server(bench: Bench) -> None:
    (stream,) = kept(bench)
    sent = in_thread(bench, stream, *[y(n) for n in range(200)])
    bench.told(WINDOW_RESPONSES)
    bench.gateway.close()
    with pytest.raises(Unavailable, match="the server has closed its connection"):
        sent.result(60)


def test_another_gateway_hears_nothing_of_the_one_before(bench: Bench) -> None:
    """Its client is gone, so a thread would wait for ever, and the main loop too; batches' numbers begin anew."""
    streams: list[Stream] = []

    def answer(stream: Stream, x: Array) -> None:
        streams.append(stream)
        if x[0, 0] == 1:
            for n in range(200):
                stream.send(y(n))

    bench.model.each(answer)
    bench.execute(1)
    bench.told(WINDOW_RESPONSES)
    # it waits behind the batch that waits for its client, and is not run for the next gateway either
    bench.execute(2)
    bench.gateway.send(Reset(77))
    assert bench.told(2) == ["executed", "executed"]
    ready = bench.next()
    assert isinstance(ready, Ready)
    assert ready.number == 77
    assert all(stream.is_cancelled() for stream in streams)
    for stream in streams:
        stream.send(y(5), final=True)
    bench.gateway.send(AttachSlab(0), (bench.slab.fd,))
    bench.model.each(lambda stream, x: stream.send({"Y": x}, final=True))
    bench.execute(9)
    assert bench.told(2) == [(0, 9, "final"), "executed"]
