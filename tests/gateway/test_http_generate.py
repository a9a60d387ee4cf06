"""Responses to generate requests: one flat object, or events as a client takes them."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fake_workers import settle
from pending import pending
from penstock.errors import ModelFailed, QueueFull
from penstock.gateway.asgi import Message
from penstock.gateway.eager_send import EagerSend
from penstock.gateway.generate_response import GenerateEncoder
from penstock.gateway.http_generate import EventStream, GeneratedResponses, OneResponse
from penstock.gateway.status import HIDDEN_TEXT
from penstock.tensors import serialize_bytes
from penstock.types import DATATYPES, Array, OutputTensor
from penstock.workers.request import Part, PendingRequest

pytestmark = pytest.mark.extension("generate")

MODEL: Any = SimpleNamespace(name="m", version=2)


def output(name: str, array: Array) -> OutputTensor:
    if array.dtype.kind == "O":
        return OutputTensor(name, "BYTES", array.shape, serialize_bytes(array))
    return OutputTensor(name, DATATYPES[array.dtype], array.shape, array.tobytes())


TEXT = [output("text_output", np.array([[b"hi"]], np.object_))]


class Request:
    """A generate request whose model the test is."""

    def __init__(self, receiver: Any, *, tells_end: bool = False) -> None:
        self.responses = GeneratedResponses(receiver)
        self.responses.encoder = GenerateEncoder(MODEL, tells_final=tells_end)
        self.responses.tells_end = tells_end
        self.pending: PendingRequest = pending(
            {"X": np.zeros((1, 1), np.float32)},
            id="q",
            respond=self.responses.respond,
            encode=self.responses.encoder,
        )
        self.taken = 0

    def answer(self) -> None:
        self.pending.finish(self.pending.encode(self.pending, TEXT))

    def part(self, response: Any, *, final: bool = False) -> None:
        self.responses.part(self.pending, Part(response, {}, final, self._taken))
        if final:
            self.pending.finish(b"")

    def _taken(self) -> None:
        self.taken += 1


class Client:
    """Takes what is sent when the test lets it."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.reads = asyncio.Semaphore(0)
        self.gone = False

    async def send(self, message: Message) -> None:
        if self.gone:
            raise OSError
        self.sent.append(message)
        if message["type"] == "http.response.body":
            await self.reads.acquire()

    def read(self, count: int = 100) -> None:
        for _ in range(count):
            self.reads.release()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def events(self) -> list[dict[str, Any]]:
        body = b"".join(m["body"] for m in self.sent[1:]).decode()
        assert not body or body.endswith("\n\n")
        events = body.split("\n\n")[:-1]
        assert all(event.startswith("data: ") for event in events)
        return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (np.array([[b"a"]], np.object_), "a"),
        (np.array([[b"a", "ü".encode()]], np.object_), ["a", "ü"]),
        (np.array([[1.5]], np.float32), 1.5),
        (np.array([[1, 2], [3, 4]], np.int8), [1, 2, 3, 4]),
        (np.array([], np.int8), []),
        (np.array([True]), True),
    ],
)
def test_an_object_of_all_outputs(array: Array, value: Any) -> None:
    request = Request(None)
    request.pending.response_parameters = {"score": 1, "model_name": "mine"}
    body = request.responses.encoder(request.pending, [output("out", array), *TEXT])
    assert json.loads(body) == {
        "id": "q",
        "model_name": "m",
        "model_version": "2",
        "score": 1,
        "out": value,
        "text_output": "hi",
    }


def test_numbers_that_are_none() -> None:
    request = Request(None)
    for array, text in (
        (np.array([np.nan], np.float32), b'"out":NaN}'),
        (np.array([np.inf, 1]), b'"out":[Infinity,1.0]}'),
    ):
        assert request.responses.encoder(request.pending, [output("out", array)]).endswith(text)


async def test_one_response() -> None:
    one = OneResponse()
    Request(one).answer()
    assert json.loads(await one.answer)["text_output"] == "hi"
    one = OneResponse()
    request = Request(one)
    request.part(TEXT)
    request.part(None, final=True)
    assert json.loads(await one.answer)["text_output"] == "hi"
    assert request.taken == 2


async def test_not_one_response() -> None:
    for parts in ([], [TEXT, TEXT], [TEXT, ModelFailed("oh")]):
        one = OneResponse()
        request = Request(one)
        for part in parts:
            request.part(part)
        request.part(None, final=True)
        with pytest.raises(ModelFailed) as caught:
            await one.answer
        expected = (
            "oh" if len(parts) == 2 and parts[1] is not TEXT else "produce exactly 1 response"
        )
        assert expected in str(caught.value)
        assert request.taken == len(parts) + 1


async def test_events_are_sent_as_the_client_takes_them() -> None:
    stream, client = EventStream(), Client()
    request = Request(stream)
    writing = asyncio.create_task(stream.write(client.send))
    await settle()
    assert client.sent == []
    for _ in range(3):
        request.part(TEXT)
    await settle()
    assert (client.status, len(client.events)) == (200, 3)
    assert client.sent[0]["headers"][0] == (b"content-type", b"text/event-stream; charset=utf-8")
    assert request.taken == 0
    request.part(TEXT)
    await settle()
    assert len(client.events) == 3
    client.read()
    await settle()
    assert (len(client.events), request.taken) == (4, 4)
    request.part(None, final=True)
    await asyncio.wait_for(writing, 60)
    assert client.sent[-1] == {"type": "http.response.body", "body": b""}
    assert client.events[0]["text_output"] == "hi"
    assert "triton_final_response" not in client.events[0]


async def stream_of(*parts: Any, tells_end: bool = False, final: bool = False) -> Client:
    """The client of a model that gives these, of which the last one is final, or else an empty end follows."""
    stream, client = EventStream(), Client()
    client.read()
    request = Request(stream, tells_end=tells_end)
    for number, part in enumerate(parts, 1):
        request.part(part, final=final and number == len(parts))
    if not final:
        request.part(None, final=True)
    await asyncio.wait_for(stream.write(client.send), 60)
    return client


async def test_no_events() -> None:
    client = await stream_of()
    assert (client.status, client.events) == (200, [])


async def test_the_end_is_told_to_those_who_ask() -> None:
    client = await stream_of(TEXT, tells_end=True)
    assert [event["triton_final_response"] for event in client.events] == [False, True]
    assert "text_output" not in client.events[1]
    client = await stream_of(TEXT, tells_end=True, final=True)
    assert [event["triton_final_response"] for event in client.events] == [True]


async def test_an_error_decides_the_status_only_where_it_is_first() -> None:
    client = await stream_of(ModelFailed("oh"), TEXT)
    assert (client.status, client.events[0]) == (500, {"error": "oh"})
    client = await stream_of(TEXT, ModelFailed("oh"), TEXT)
    assert (client.status, client.events[1]) == (200, {"error": "oh"})
    client = await stream_of(QueueFull("full", retry_after_s=2))
    assert client.status == 503
    assert (b"retry-after", b"2") in client.sent[0]["headers"]


async def test_a_response_that_can_not_be_encoded(caplog: pytest.LogCaptureFixture) -> None:
    half = [output("out", np.array([1], np.float16))]
    client = await stream_of(TEXT, half, [object()], TEXT)
    texts = [event.get("error", "") for event in client.events]
    assert "sending FP16 data via JSON is not supported" in texts[1]
    assert (texts[2], texts[3]) == (HIDDEN_TEXT, "")
    assert "could not be encoded" in caplog.text


async def test_a_request_that_fails_without_a_part() -> None:
    stream, client = EventStream(), Client()
    client.read()
    request = Request(stream)
    request.part(TEXT)
    request.pending.finish(ModelFailed("died"))
    await asyncio.wait_for(stream.write(client.send), 60)
    assert [event.get("error") for event in client.events] == [None, "died"]


async def test_a_client_that_is_gone_holds_nobody_up() -> None:
    stream, client = EventStream(), Client()
    request = Request(stream)
    client.gone = True
    request.part(TEXT)
    await asyncio.wait_for(stream.write(client.send), 60)
    request.part(TEXT)
    assert request.taken == 2


# ── a server's `send` as the bridge's ───────────────────────────────────────────────────────────────────────────────


async def test_messages_are_sent_by_who_awaits_or_at_the_end() -> None:
    client = Client()
    sending = EagerSend(client.send)
    start = {"type": "http.response.start"}
    more = {"type": "http.response.body", "body": b"a", "more_body": True}
    last = {"type": "http.response.body", "body": b"b"}
    sending(start)
    assert client.sent == []
    waiting = asyncio.ensure_future(_awaited(sending(more)))
    await settle()
    assert client.sent == [start, more]
    assert not waiting.done()
    client.read(1)
    await waiting
    ending = asyncio.create_task(sending.complete())
    await settle()
    sending(last)
    client.read()
    await asyncio.wait_for(ending, 60)
    assert client.sent == [start, more, last]


async def test_a_response_that_was_sent_by_who_awaited_it() -> None:
    client = Client()
    client.read()
    sending = EagerSend(client.send)
    await sending({"type": "http.response.start"})
    await sending({"type": "http.response.body", "body": b""})
    await asyncio.wait_for(sending.complete(), 60)
    assert len(client.sent) == 2


async def _awaited(awaitable: Any) -> None:
    await awaitable
