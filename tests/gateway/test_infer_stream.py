"""Streams of requests in process: order, ends, errors, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fake_workers import settle
from infer_stream_bench import StreamBench, errors, finals, ids, outputs
from penstock.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelFailed,
    PayloadTooLarge,
    QueueFull,
    Unavailable,
)
from penstock.gateway import grpc_stream_response
from penstock.gateway import infer_stream as module
from penstock.gateway.aside import LARGE_BYTES
from penstock.gateway.grpc_stream_response import UNKNOWN_BYTES
from penstock.gateway.status import HIDDEN_TEXT

pytestmark = pytest.mark.extension("streaming")

Open = Callable[..., StreamBench]


@pytest.fixture
async def open_stream() -> Any:
    """`open_stream(headers, timeout_us)`."""
    benches: list[StreamBench] = []

    def start(*arguments: Any, **named: Any) -> StreamBench:
        benches.append(StreamBench(*arguments, **named))
        return benches[-1]

    yield start
    for bench in benches:
        bench.close()


@pytest.fixture
async def bench(open_stream: Open) -> StreamBench:
    return open_stream()


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "MAX_REQUESTS", 4)
    yield


# ── one response a request ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_and_its_response(bench: StreamBench) -> None:
    bench.send("a", parameters={"mine": 1})
    await settle()
    (request,) = bench.inference.requests
    assert request.plan.parameters == {"mine": 1}
    assert bench.inference.terms[0].tenant == "blue"
    bench.inference.answer("a")
    (response,) = await bench.receive()
    infer = response.infer_response
    assert (infer.id, infer.model_name, infer.model_version) == ("a", "one", "3")
    assert response.error_message == ""
    assert infer.parameters["triton_final_response"].bool_param is True
    assert [output.name for output in infer.outputs] == ["Y"]
    assert infer.raw_output_contents == [np.array([1, 2], np.float32).tobytes()]


async def test_parameters_of_the_model_come_with_the_flag(bench: StreamBench) -> None:
    bench.send("a")
    await settle()
    bench.inference.requests[0].response_parameters = {"score": 0.5}
    bench.inference.answer("a")
    (response,) = await bench.receive()
    assert response.infer_response.parameters["score"].double_param == 0.5
    assert finals([response]) == [True]


async def test_responses_are_in_the_order_of_the_requests(bench: StreamBench) -> None:
    for each in "abc":
        bench.send(each, model=f"model_{each}")
    await settle()
    bench.inference.answer("c", "b")
    assert await bench.receive() == []
    bench.inference.answer("a")
    assert ids(await bench.receive()) == ["a", "b", "c"]


async def test_the_clients_end_is_the_streams_end_once_all_is_answered(bench: StreamBench) -> None:
    bench.send("a")
    bench.send("b")
    bench.send_bytes(None)
    await settle()
    assert not bench.stream.over
    bench.inference.answer("b", "a")
    assert ids(await bench.rest()) == ["a", "b"]
    assert (bench.stream.over, bench.stream.error) == (True, None)
    assert bench.inference.cancelled == []


async def test_nothing_was_asked(bench: StreamBench) -> None:
    bench.send_bytes(None)
    assert await bench.rest() == []
    assert bench.stream.error is None


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_errors_have_their_turn_and_the_stream_goes_on(bench: StreamBench) -> None:
    for each in ("good", "fails", "unknown", "after"):
        bench.send(each, model="none" if each == "unknown" else "one", model_version="3")
    await settle()
    bench.inference.named("fails").finish(ModelFailed("oh"))
    bench.inference.answer("after")
    assert await bench.receive() == []
    bench.inference.answer("good")
    found = await bench.receive()
    assert ids(found) == ["good", "fails", "unknown", "after"]
    unknown = "Request for unknown model: 'none' is not found"
    assert errors(found) == ["", "oh", unknown, ""]
    assert finals(found) == [True] * 4
    assert [each.infer_response.model_name for each in found] == ["one", "one", "none", "one"]
    assert {each.infer_response.model_version for each in found} == {"3"}
    assert [len(each.infer_response.outputs) for each in found] == [1, 0, 0, 1]
    assert not bench.stream.over


async def test_a_refusal(bench: StreamBench) -> None:
    bench.inference.refusal = QueueFull("full", retry_after_s=1)
    bench.send("a")
    bench.send("b", model="many")
    await settle()
    found = await bench.receive()
    assert (ids(found), errors(found)) == (["a", "b"], ["full", "full"])


@pytest.mark.parametrize("size", [0, LARGE_BYTES])
async def test_a_malformed_message_and_one_with_a_bad_header(bench: StreamBench, size: int) -> None:
    bench.send_bytes(b"\xff" * (size + 1))
    bench.send("bad", shape=[-1], raw=[bytes(size)])
    bench.send("good")
    await bench.inference.submitted(1)
    bench.inference.answer("good")
    found = await bench.receive()
    assert ids(found) == ["", "bad", "good"]
    assert [bool(text) for text in errors(found)] == [True, True, False]
    assert found[1].infer_response.model_name == "one"


async def test_a_large_request_keeps_its_place(bench: StreamBench) -> None:
    bench.send("large", raw=[bytes(LARGE_BYTES)], shape=[1, LARGE_BYTES // 4])
    bench.send("small")
    await bench.inference.submitted(2)
    assert [request.id for request in bench.inference.requests] == ["large", "small"]


async def test_a_bug_is_the_requests_own_error_and_is_not_shown(
    bench: StreamBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.inference.refusal = ZeroDivisionError("secret")  # type: ignore[assignment]
    bench.send("a")
    await settle()
    assert errors(await bench.receive()) == [HIDDEN_TEXT]
    assert "secret" in caplog.text


async def test_a_client_that_wants_status_codes_gets_the_first_error_as_one(
    open_stream: Open,
) -> None:
    bench = open_stream({b"triton_grpc_error": b"true"})
    for each in "abc":
        bench.send(each)
    await settle()
    bench.inference.named("b").finish(InvalidRequest("oh"))
    assert not bench.stream.over
    bench.inference.answer("a")
    assert ids(await bench.rest()) == ["a"]
    assert str(bench.stream.error) == "oh"
    assert isinstance(bench.stream.error, InvalidRequest)
    assert bench.inference.cancelled == ["c"]


async def test_what_can_not_be_read_ends_the_stream(bench: StreamBench) -> None:
    bench.send("a")
    bench.send_bytes(PayloadTooLarge("too large"))
    assert await bench.rest() == []
    assert isinstance(bench.stream.error, PayloadTooLarge)
    assert bench.inference.cancelled == ["a"]


# ── decoupled models ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_parts_are_sent_as_they_come(bench: StreamBench) -> None:
    bench.send("one")
    bench.send("many", model="many")
    await settle()
    assert bench.inference.named("one").sink is None
    bench.inference.part("many", outputs(), parameters={"n": 1})
    bench.inference.part("many", outputs(np.zeros((1, 3), np.float32)))
    found = await bench.receive()
    assert ids(found) == ["many", "many"]
    assert finals(found) == [False, False]
    assert found[0].infer_response.parameters["n"].int64_param == 1
    assert found[1].infer_response.outputs[0].shape == [1, 3]
    bench.inference.answer("one")
    bench.inference.part("many", outputs(), final=True)
    bench.send_bytes(None)
    found = await bench.rest()
    assert (ids(found), finals(found)) == (["one", "many"], [True, True])
    assert bench.stream.error is None


@pytest.mark.parametrize("asked", [False, True])
async def test_an_empty_end_is_told_to_those_who_ask(bench: StreamBench, asked: bool) -> None:
    flag = {"triton_enable_empty_final_response": asked}
    bench.send("a", model="many", parameters=flag)
    bench.send_bytes(None)
    await settle()
    taken: list[int] = []
    bench.inference.part("a", outputs())
    bench.inference.part("a", None, final=True, taken=lambda: taken.append(1))
    found = await bench.rest()
    assert finals(found) == [False, True][: 1 + asked]
    assert taken == [1]
    if asked:
        last = found[-1].infer_response
        assert (last.id, last.model_name, last.model_version) == ("a", "many", "3")
        assert not last.outputs


async def test_an_error_in_the_middle_and_one_at_the_end(bench: StreamBench) -> None:
    bench.send("a", model="many")
    await settle()
    bench.inference.part("a", ModelFailed("first"))
    bench.inference.part("a", outputs())
    bench.inference.part("a", ModelFailed("last"), final=True)
    found = await bench.receive()
    assert errors(found) == ["first", "", "last"]
    assert finals(found) == [False, False, True]
    assert {each.infer_response.model_name for each in found} == {"many"}


async def test_a_worker_that_is_lost_in_the_middle(bench: StreamBench) -> None:
    bench.send("a", model="many")
    await settle()
    bench.inference.part("a", outputs())
    bench.inference.named("a").finish(ModelFailed("died"))
    found = await bench.receive()
    assert (errors(found), finals(found)) == (["", "died"], [False, True])


async def test_the_first_error_of_a_part_as_status(open_stream: Open) -> None:
    bench = open_stream({b"triton_grpc_error": b"true"})
    taken: list[int] = []
    bench.send("a", model="many")
    bench.send("b")
    await settle()
    bench.inference.part("a", outputs(), taken=lambda: taken.append(1))
    bench.inference.part("a", ModelFailed("oh"), taken=lambda: taken.append(2))
    assert ids(await bench.rest()) == ["a"]
    assert str(bench.stream.error) == "oh"
    assert sorted(taken) == [1, 2]
    assert sorted(bench.inference.cancelled) == ["a", "b"]


async def test_an_encoder_that_fails(bench: StreamBench, caplog: pytest.LogCaptureFixture) -> None:
    bench.send("a", model="many")
    await settle()
    bench.inference.part("a", [object()])  # type: ignore[list-item]
    bench.inference.part("a", outputs(), final=True)
    found = await bench.receive()
    assert (errors(found), finals(found)) == ([HIDDEN_TEXT, ""], [False, True])
    assert "could not be encoded" in caplog.text


# ── who waits for whom ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_part_is_taken_when_the_transport_has_it(bench: StreamBench) -> None:
    taken: list[str] = []
    bench.send("a", model="many")
    await settle()
    for name in "xyz":
        bench.inference.part("a", outputs(), taken=lambda name=name: taken.append(name))
    assert len(await bench.stream.outbox.next()) == 1
    assert taken == []
    assert len(await bench.stream.outbox.next(1 << 20)) == 2
    assert taken == ["x"]
    bench.take_all()
    assert taken == ["x", "y", "z"]
    assert bench.stream.outbox.nbytes == 0


async def test_no_request_is_read_while_too_many_are_under_way(
    bench: StreamBench, small_bounds: None
) -> None:
    for number in range(7):
        bench.send(str(number))
    await settle()
    assert len(bench.inference.requests) == 4
    bench.inference.answer("1", "2", "3")
    await settle()
    assert len(bench.inference.requests) == 4
    bench.inference.answer("0")
    await settle()
    # they are answered, but not sent
    assert len(bench.inference.requests) == 4
    assert ids(await bench.receive()) == ["0", "1", "2", "3"]
    await settle()
    assert len(bench.inference.requests) == 7


async def test_no_request_is_read_while_too_many_bytes_wait(
    bench: StreamBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    bench.send("a", model="many")
    bench.send("b", model="many")
    await settle()
    bench.inference.part("a", outputs(np.zeros((1, 300), np.float32)))
    bench.send("c", model="many")
    bench.send("d", model="many")
    await settle()
    assert [request.id for request in bench.inference.requests] == ["a", "b", "c"]
    await bench.receive()
    await settle()
    assert len(bench.inference.requests) == 4


async def test_all_bytes_are_given_back(bench: StreamBench) -> None:
    for each in "abc":
        bench.send(each, model="many" if each == "b" else "one")
    bench.send("bad", model="none")
    await settle()
    bench.inference.answer("c", "a")
    bench.inference.part("b", outputs(), final=True)
    await bench.receive()
    assert (bench.stream._nbytes, bench.stream.outbox.nbytes) == (0, 0)
    assert not bench.stream._requests


async def test_unread_answers_count_before_they_are_there(
    bench: StreamBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of requests that are small: else a client that reads nothing has all memory filled with what it asked for."""
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    monkeypatch.setattr(grpc_stream_response, "UNKNOWN_BYTES", 4000)
    for each in "abcdefgh":
        bench.send(each)
    await settle()
    assert len(bench.inference.requests) == 3, "what is not known yet is taken for large"
    for each in "abc":
        bench.inference.named(each)
        bench.inference.answer(each)
    await bench.receive()
    await settle()
    assert len(bench.inference.requests) == 8, "but only until it is known"


async def test_large_answers_are_expected_to_be_so_again(bench: StreamBench) -> None:
    bench.send("a")
    await settle()
    (request,) = bench.stream._requests
    encoder = request._encoder
    assert encoder is not None
    assert encoder.expected_bytes == UNKNOWN_BYTES
    encoder.learn(800)
    assert encoder.expected_bytes == 800
    encoder.learn(8)
    assert encoder.expected_bytes == 700
    encoder.learn(900)
    assert encoder.expected_bytes == 900


async def test_what_is_answered_knows_its_request_no_more(bench: StreamBench) -> None:
    """They would be garbage that only a collection finds."""
    for each in ("a", "b", "many"):
        bench.send(each, model="many" if each == "many" else "one")
    await settle()
    streamed = list(bench.stream._requests)
    assert all(request.pending is not None for request in streamed)
    bench.inference.answer("b", "a")
    await bench.receive()
    bench.stream.cancel()
    assert [(request.pending, request.answer) for request in streamed] == [(None, None)] * 3


# ── who leaves ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_client_that_leaves_cancels_all_its_requests(bench: StreamBench) -> None:
    taken: list[int] = []
    for each in "abc":
        bench.send(each, model="many" if each == "b" else "one")
    await settle()
    bench.inference.answer("c")
    bench.inference.part("b", outputs(), taken=lambda: taken.append(1))
    bench.stream.cancel()
    assert sorted(bench.inference.cancelled) == ["a", "b"]
    assert taken == [1]
    assert await bench.rest() == []
    assert not bench.streams._open
    bench.send("late")
    await settle()
    assert len(bench.inference.requests) == 3


async def test_parts_that_come_after_the_end_are_dropped(bench: StreamBench) -> None:
    bench.send("a", model="many")
    await settle()
    request = bench.inference.named("a")
    bench.stream.cancel()
    request.done = False
    taken: list[int] = []
    bench.inference.part("a", outputs(), taken=lambda: taken.append(1))
    assert (taken, len(bench.stream.outbox)) == ([1], 0)


async def test_a_reader_that_waits_for_room_sees_the_end(
    bench: StreamBench, small_bounds: None
) -> None:
    for number in range(6):
        bench.send(str(number))
    await settle()
    bench.stream.cancel()
    await asyncio.wait_for(bench.reader, 60)
    assert len(bench.inference.requests) == 4


async def test_a_deadline(open_stream: Open) -> None:
    bench = open_stream(timeout_us=20_000)
    bench.send("a")
    await settle()
    left_us = bench.inference.terms[0].timeout_us
    assert left_us is not None and 0 <= left_us <= 20_000
    assert await asyncio.wait_for(bench.rest(), 60) == []
    assert isinstance(bench.stream.error, DeadlineExceeded)
    assert bench.inference.cancelled == ["a"]


# ── a server that stops ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_read_is_answered_when_the_server_stops(bench: StreamBench) -> None:
    bench.send("a")
    await settle()
    bench.streams.drain()
    assert not bench.stream.over
    bench.send("b")
    await settle()
    bench.inference.answer("a")
    assert ids(await bench.rest()) == ["a"]
    assert isinstance(bench.stream.error, Unavailable)
    assert str(bench.stream.error).startswith("GRPC server is shutting down")
    assert len(bench.inference.requests) == 1


async def test_a_client_that_has_sent_all_is_told_nothing_of_the_stop(bench: StreamBench) -> None:
    bench.send("a")
    bench.send_bytes(None)
    await settle()
    bench.streams.drain()
    bench.inference.answer("a")
    assert ids(await bench.rest()) == ["a"]
    assert bench.stream.error is None


async def test_idle_and_new_streams_end_when_the_server_stops(bench: StreamBench) -> None:
    bench.streams.drain()
    assert isinstance(bench.stream.error, Unavailable)
    late = bench.streams.open(bench.stream._terms)
    assert isinstance(late.error, Unavailable)


async def test_requests_are_traced_one_by_one_once_that_is_switched_on(open_stream: Open) -> None:
    bench = open_stream({b"traceparent": b"00-1-2-01"})
    bench.send("before")
    await settle()
    bench.switch.on = True
    bench.send("after")
    await settle()
    before, after = bench.inference.terms
    assert before.traced is None
    assert after.traced is not None and after.traced.protocol == "GRPC"
    assert after.traced.traceparent == "00-1-2-01"
    assert 0 < after.traced.started_ns <= after.traced.received_ns
