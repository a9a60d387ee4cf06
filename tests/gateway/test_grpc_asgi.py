"""gRPC's framing over ASGI, in process: whatever comes, the response is complete and says why."""

from __future__ import annotations

import asyncio
import base64
import gzip
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import numpy as np
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from asgi_driver import Exchange, drive, scope
from pending import pending
from penstock.access.rules import Rule
from penstock.access.session import AnySession
from penstock.errors import InvalidRequest, ModelFailed, NotFound, PenstockError, QueueFull
from penstock.gateway.asgi import Message, Receive, Scope, Send
from penstock.gateway.aside import LARGE_BYTES
from penstock.gateway.disconnects import Disconnects
from penstock.gateway.grpc_asgi import GrpcOverAsgi
from penstock.gateway.grpc_service import MODEL_INFER
from penstock.gateway.no_task import NO_TASK, NoTask, task_factory
from penstock.gateway.status import HIDDEN_TEXT
from penstock.gateway.terms import TermsReader
from penstock.types import NO_TERMS, CallTerms
from penstock.workers.request import PendingRequest, Respond

LIMIT = 1000
OK = (0, "")


def framed(message: bytes, flag: int = 0, length: int | None = None) -> bytes:
    return struct.pack(">BI", flag, len(message) if length is None else length) + message


async def turn() -> None:
    """Until callbacks have run that are due."""
    over = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(over.set_result, None)
    await over


class FakeService:
    """A GrpcService whose RPCs are the test's."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.requests: list[PendingRequest] = []
        self.terms: list[CallTerms] = []
        self.error: BaseException | None = None
        self.rules: dict[str, Rule] = {}
        self.unary = {"/echo": self._echo}
        self.streams = {"/stream": self._stream, "/fails": self._fails, "/silent": self._silent}

    async def infer_large(
        self, message: bytes, respond: Respond, terms: CallTerms
    ) -> PendingRequest:
        return self.infer(message, respond, terms)

    def infer(self, message: bytes, respond: Respond, terms: CallTerms) -> PendingRequest:
        self.messages.append(message)
        self.terms.append(terms)
        if self.error is not None:
            raise self.error
        request = pending(
            {"X": np.zeros((1, 1), np.float32)}, respond=respond, arrived_ns=time.monotonic_ns()
        )
        self.requests.append(request)
        return request

    async def _echo(self, message: bytes, _: AnySession) -> bytes:
        self.messages.append(message)
        if self.error is not None:
            raise self.error
        return framed(message)

    async def _stream(self, messages: AsyncIterator[bytes], _: AnySession) -> AsyncIterator[bytes]:
        async for message in messages:
            self.messages.append(message)
            yield framed(message)

    async def _fails(self, messages: AsyncIterator[bytes], _: AnySession) -> AsyncIterator[bytes]:
        async for message in messages:
            yield framed(message)
            assert self.error is not None
            raise self.error

    async def _silent(self, messages: AsyncIterator[bytes], _: AnySession) -> AsyncIterator[bytes]:
        async for _unused in messages:
            if self.error is not None:
                raise self.error
        return
        yield b""


class Bench:
    def __init__(
        self, limit: int = LIMIT, patience_s: float = 30, *, without_task: bool = False
    ) -> None:
        self.without_task = without_task
        self.service = FakeService()
        self.disconnects = Disconnects()
        self.app = GrpcOverAsgi(
            self.service,  # type: ignore[arg-type]
            TermsReader("x-tenant"),
            self.disconnects,
            patience_s,
            limit,
            8000,
        )

    async def call(
        self,
        *chunks: bytes | None,
        path: str = "/echo",
        encoding: str = "",
        headers: Mapping[str, str] = {},
        **driver: Any,
    ) -> Exchange:
        named = {**headers, "grpc_encoding": encoding} if encoding else headers
        return await drive(self.serve, scope(path, headers=named), chunks, **driver)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As `EnvoyApp` and the bridge do it: until what is served can go no further."""
        if not self.without_task or scope["path"] != MODEL_INFER:
            return await self.app(scope, receive, send)
        before = asyncio.all_tasks()
        # the bridge's `receive` gives futures
        received = self.app.infer(scope, lambda: asyncio.ensure_future(receive()), send)
        if not isinstance(received, NoTask):
            await received
        while others := asyncio.all_tasks() - before:
            await asyncio.wait(others)
        await turn()
        if others := asyncio.all_tasks() - before:
            await asyncio.wait(others)


@pytest.fixture(params=[False, True], ids=["a task", "no task"])
async def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(without_task=request.param)


async def test_a_call_and_its_answer(bench: Bench) -> None:
    exchange = await bench.call(framed(b"hello"))
    assert exchange.grpc == OK
    assert exchange.body == framed(b"hello")
    assert exchange.headers[b"content-type"] == b"application/grpc"
    assert exchange.status == 200


@pytest.mark.parametrize("size", [1, 2, 5, 7])
async def test_a_message_in_pieces(bench: Bench, size: int) -> None:
    data = framed(b"hello world")
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert (await bench.call(*pieces)).body == data
    assert (await bench.call(b"", *pieces, b"")).body == data


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([b""], "expected one gRPC message, got 0 bytes"),
        ([b"\0\0\0"], "expected one gRPC message, got 3 bytes"),
        ([framed(b"abc", length=4)], "the gRPC message says 4 bytes, 3 came"),
        ([framed(b"abc", length=2)], "the gRPC message says 2 bytes, 3 came"),
        ([framed(b"abc") + framed(b"d")], "the gRPC message says 3 bytes, 9 came"),
        ([framed(b"abc", length=2), b"x", b""], "the body is longer than its gRPC message says"),
        ([framed(b"abc", length=900), b""], "the gRPC message says 900 bytes, 3 came"),
        ([framed(b"abc", length=9), None], "the client went away in the middle of its request"),
        ([None], "expected one gRPC message, got 0 bytes"),
        ([framed(b"abc", 1)], "the message is flagged as compressed, but grpc-encoding names no"),
    ],
)
@pytest.mark.parametrize("path", ["/echo", MODEL_INFER])
async def test_bad_framing_is_told_at_once(
    bench: Bench, chunks: list[bytes | None], text: str, path: str
) -> None:
    code, message = (await bench.call(*chunks, path=path)).grpc
    assert code == 3
    assert text in message
    assert bench.service.messages == []


@pytest.mark.parametrize("rest", [[], [b"x" * 500], [b"x" * 500] * 9])
async def test_a_message_over_the_limit_is_refused_before_it_is_read(
    bench: Bench, rest: list[bytes]
) -> None:
    exchange = await bench.call(framed(b"", length=LIMIT + 1), *rest)
    assert exchange.grpc == (8, "the message has 1001 bytes, the limit is 1000")
    assert exchange.received == 1


async def test_a_split_prefix_is_looked_at_as_soon_as_it_is_there(bench: Bench) -> None:
    data = framed(b"", length=2**32 - 1)
    exchange = await bench.call(data[:3], data[3:], b"x" * 100, b"x" * 100)
    assert exchange.grpc[0] == 8
    assert exchange.received == 2


async def test_the_largest_message_passes(bench: Bench) -> None:
    exchange = await bench.call(framed(b"x" * LIMIT))
    assert exchange.grpc == OK
    assert len(exchange.body) == LIMIT + 5


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_compressed_messages(
    bench: Bench, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    exchange = await bench.call(framed(compress(b"hello" * 9), 1), encoding=encoding)
    assert (exchange.grpc, exchange.body) == (OK, framed(b"hello" * 9))


@pytest.mark.parametrize(
    ("data", "encoding", "code"),
    [
        (gzip.compress(b"x" * (LIMIT + 1)), "gzip", 8),
        (gzip.compress(b"x")[:-3], "gzip", 3),
        (b"not gzip", "gzip", 3),
        (b"x", "snappy", 12),
        (b"x", "identity", 3),
    ],
)
async def test_bad_compression(bench: Bench, data: bytes, encoding: str, code: int) -> None:
    assert (await bench.call(framed(data, 1), encoding=encoding)).grpc[0] == code


async def test_an_encoding_that_a_message_does_not_use(bench: Bench) -> None:
    assert (await bench.call(framed(b"plain"), encoding="gzip")).body == framed(b"plain")


async def test_an_unknown_method(bench: Bench) -> None:
    assert (await bench.call(framed(b""), path="/no/such")).grpc == (12, "unknown method /no/such")


@pytest.mark.parametrize("path", ["/echo", MODEL_INFER, "/fails", "/silent"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotFound("no model 'm'"), (5, "no model 'm'")),
        (ModelFailed("50% of é\nlost"), (13, "50%25 of %C3%A9%0Alost")),
        (PenstockError("secret"), (13, HIDDEN_TEXT)),
        (KeyError("secret"), (13, HIDDEN_TEXT)),
        (FileNotFoundError(2, "secret"), (13, HIDDEN_TEXT)),
        (SystemExit(3), (13, HIDDEN_TEXT)),
        (asyncio.CancelledError(), (1, "cancelled")),
    ],
)
async def test_every_error_completes_the_response(
    bench: Bench,
    path: str,
    error: BaseException,
    expected: tuple[int, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench.service.error = error
    exchange = await bench.call(framed(b"x"), path=path)
    assert exchange.grpc == expected
    assert ("failed" in caplog.text) == (
        expected == (13, HIDDEN_TEXT) and type(error) is not PenstockError
    )


# ── streams ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [1, 3, 8, 100])
async def test_a_stream_in_pieces(bench: Bench, size: int) -> None:
    data = framed(b"one") + framed(b"") + framed(b"three")
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    exchange = await bench.call(*pieces, path="/stream")
    assert (exchange.grpc, exchange.body) == (OK, data)
    assert bench.service.messages == [b"one", b"", b"three"]


async def test_an_empty_stream(bench: Bench) -> None:
    exchange = await bench.call(b"", path="/stream")
    assert (exchange.grpc, exchange.body) == (OK, b"")


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([framed(b"abc", length=4)], (3, "the stream ends within a message, 8 bytes are left")),
        ([b"\0\0"], (3, "the stream ends within a message, 2 bytes are left")),
        (
            [framed(b"", length=LIMIT + 1), b"x"],
            (8, "the message has 1001 bytes, the limit is 1000"),
        ),
        ([None], (1, "cancelled")),
    ],
)
async def test_a_stream_that_is_wrong_from_the_start(
    bench: Bench, chunks: list[bytes | None], expected: tuple[int, str]
) -> None:
    assert (await bench.call(*chunks, path="/stream")).grpc == expected


async def test_a_stream_that_goes_wrong_on_the_way(bench: Bench) -> None:
    exchange = await bench.call(framed(b"good"), b"\0", path="/stream")
    assert exchange.grpc == (3, "the stream ends within a message, 1 bytes are left")
    assert exchange.body == framed(b"good")


# ── inference: the answer comes when the batch is done ──────────────────────────────────────────────────────────────


async def infer(bench: Bench, **driver: Any) -> tuple[Exchange, PendingRequest]:
    exchange = await bench.call(framed(b"request"), path=MODEL_INFER, **driver)
    return exchange, bench.service.requests[-1]


async def test_an_inference_is_answered_later(bench: Bench) -> None:
    exchange, request = await infer(bench)
    assert (exchange.sent, bench.service.messages) == ([], [b"request"])
    request.finish(framed(b"response"))
    assert (exchange.grpc, exchange.body) == (OK, framed(b"response"))
    request.finish(ModelFailed("too late"))
    assert exchange.grpc == OK


async def test_an_inference_that_fails_later(bench: Bench) -> None:
    exchange, request = await infer(bench)
    request.finish(InvalidRequest("class result not available"))
    assert exchange.grpc == (3, "class result not available")


@pytest.mark.parametrize(
    ("headers", "terms"),
    [
        ({}, NO_TERMS),
        ({"grpc_timeout": "5S"}, CallTerms(5_000_000)),
        ({"x_tenant": "search"}, CallTerms(tenant="search")),
        ({"x_tenant": "search", "grpc_timeout": "5S"}, CallTerms(5_000_000, "search")),
    ],
)
async def test_an_inference_brings_its_terms(
    bench: Bench, headers: Mapping[str, str], terms: CallTerms, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what it takes to read the message would be told, on a machine that is busy with other things
    monkeypatch.setattr(time, "monotonic_ns", lambda: 1_000_000_000)
    await infer(bench, headers=headers)
    assert bench.service.terms == [terms]


@pytest.mark.parametrize("headers", [{"grpc_timeout": "5"}, {"x_tenant": "x" * 129}])
async def test_bad_terms_are_told_before_anything_is_read(
    bench: Bench, headers: Mapping[str, str]
) -> None:
    exchange = await bench.call(framed(b"request"), path=MODEL_INFER, headers=headers)
    (name,) = headers
    code, text = exchange.grpc
    assert (code, text.split()[0]) == (3, name.replace("_", "-"))
    assert (exchange.received, bench.service.messages) == (0, [])


@pytest.mark.parametrize("without_task", [False, True])
@pytest.mark.parametrize("size", [1, LARGE_BYTES])
async def test_a_message_that_was_slow_to_come_has_less_time_left(
    size: int, without_task: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = 1_000_000_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)

    async def receive() -> Message:
        nonlocal now_ns
        now_ns += 30_000_000
        return {"type": "http.request", "body": framed(bytes(size)), "more_body": False}

    app = Bench(LARGE_BYTES, without_task=without_task)
    await app.serve(scope(MODEL_INFER, headers={"grpc_timeout": "50m"}), receive, _send_nothing)
    assert app.service.terms == [CallTerms(20_000)]


async def _send_nothing(_: Message) -> None:
    raise AssertionError("nothing is to be sent yet")


async def test_a_small_inference_makes_no_task(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    received: asyncio.Future[Message] = loop.create_future()
    loop.set_task_factory(task_factory)
    before = asyncio.all_tasks()
    waiting = bench.app.infer(scope(MODEL_INFER), lambda: received, _send_nothing)
    assert waiting is NO_TASK
    # as the bridge does it
    loop.create_task(waiting).add_done_callback(print)  # type: ignore[arg-type]
    received.set_result({"type": "http.request", "body": framed(b"request"), "more_body": False})
    await turn()
    assert bench.service.messages == [b"request"]
    assert asyncio.all_tasks() == before


async def test_a_body_that_never_comes_is_refused_without_a_task() -> None:
    bench = Bench(patience_s=0.04)
    sent: list[Message] = []
    received: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    def send(event: Message) -> asyncio.Future[None]:
        sent.append(event)
        if event["type"] == "http.response.body":
            over.set()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    assert bench.app.infer(scope(MODEL_INFER), lambda: received, send) is NO_TASK
    await asyncio.wait_for(over.wait(), 30)
    exchange = Exchange(sent)
    assert "too slowly" in exchange.grpc[1]
    # what comes then has its answer
    received.set_result({"type": "http.request", "body": framed(b"late"), "more_body": False})
    await turn()
    assert (bench.service.messages, exchange.sent) == ([], sent)


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_hint(exchange: Exchange, after_ms: int) -> None:
    """The response says when to come back, in both ways."""
    code, _ = exchange.grpc
    assert exchange.headers[b"grpc-retry-pushback-ms"] == str(after_ms).encode()
    details = exchange.headers[b"grpc-status-details-bin"]
    assert b"=" not in details
    status = Status.FromString(base64.b64decode(details + b"=" * (-len(details) % 4)))
    assert status.code == code
    retry = RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == after_ms


# lengths that would be padded in all ways
@pytest.mark.parametrize("text", ["full", "full!", "full!!", "50% of é"])
@pytest.mark.parametrize("path", ["/echo", MODEL_INFER, "/silent", "/fails"])
async def test_a_refusal_says_when_to_come_back(bench: Bench, path: str, text: str) -> None:
    bench.service.error = QueueFull(text, retry_after_s=1.5)
    exchange = await bench.call(framed(b"x"), path=path)
    assert exchange.grpc[0] == 14
    check_hint(exchange, 1500)


async def test_an_inference_that_is_refused_later(bench: Bench) -> None:
    exchange, request = await infer(bench)
    request.finish(QueueFull("full", retry_after_s=0.02))
    assert exchange.grpc == (14, "full")
    check_hint(exchange, 20)
    # trailers-only: what else a client would not retry
    assert "trailers" not in exchange.start


async def test_nothing_is_promised_that_nobody_knows(bench: Bench) -> None:
    bench.service.error = QueueFull("full")
    exchange = await bench.call(framed(b"x"))
    assert exchange.headers.keys() == {b"content-type", b"grpc-status", b"grpc-message"}


class ClientDisconnectedError(OSError):
    """As the bridge's own: one object for every client that is gone."""


@pytest.mark.parametrize("error", [ClientDisconnectedError(), RuntimeError("already started")])
async def test_an_answer_nobody_takes_disturbs_nobody(bench: Bench, error: Exception) -> None:
    _, request = await infer(bench, refuse=lambda _: error)
    request.finish(framed(b"response"))
    assert request.done
    if isinstance(error, OSError):
        assert error.__traceback__ is None


@pytest.mark.parametrize("path", ["/echo", "/stream"])
async def test_a_client_that_is_gone_leaves_nothing_behind(
    bench: Bench, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = ClientDisconnectedError()
    exchange = await bench.call(framed(b"x"), path=path, refuse=lambda _: error)
    assert exchange.sent == []
    assert (error.__traceback__, error.__context__) == (None, None)
    assert caplog.text == ""


async def test_a_client_that_leaves_in_the_middle_of_a_stream(bench: Bench) -> None:
    def refuse(event: Message) -> Exception | None:
        return ClientDisconnectedError() if event.get("body") == framed(b"two") else None

    exchange = await bench.call(framed(b"one") + framed(b"two"), path="/stream", refuse=refuse)
    assert exchange.body == framed(b"one")
