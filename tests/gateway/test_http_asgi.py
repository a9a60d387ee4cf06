"""HTTP over ASGI, in process: bodies within their limit, and a complete response whatever happens."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import Any

import numpy as np
import pytest

from asgi_driver import Exchange, drive, scope
from fake_workers import settle
from pending import pending as make_pending
from penstock.access.session import AnySession
from penstock.errors import ModelFailed, NotFound, PenstockError, QueueFull
from penstock.gateway.asgi import Message
from penstock.gateway.disconnects import Disconnects
from penstock.gateway.http_asgi import HttpOverAsgi
from penstock.gateway.http_types import HttpRequest, HttpResponse, InferCall
from penstock.gateway.route_table import Reply
from penstock.gateway.status import HIDDEN_TEXT
from penstock.gateway.terms import TermsReader
from penstock.types import NO_TERMS, CallTerms
from penstock.workers.request import PendingRequest, Respond

LIMIT = 100
OTHER_PORT = 8002
INFER = "/v2/models/m/infer"


class FakeRoutes:
    """HttpRoutes that echo."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, HttpRequest]] = []
        self.error: BaseException | None = None
        self.reply: Reply | None = None

    def admit(self, method: str, path: str, session: AnySession) -> None:
        """Anybody."""

    async def __call__(self, path: str, request: HttpRequest) -> Reply:
        self.requests.append((path, request))
        if self.error is not None:
            raise self.error
        if self.reply is not None:
            return self.reply
        return HttpResponse(request.body, headers=(("x-method", request.method),))


class FakeInference:
    """HttpInference whose requests wait for the test."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, str, HttpRequest]] = []
        self.terms: list[CallTerms] = []
        self.error: PenstockError | None = None
        self.pending: list[PendingRequest] = []
        self.cancelled: list[PendingRequest] = []

    async def submit(
        self, name: str, version: str, request: HttpRequest, respond: Respond, terms: CallTerms
    ) -> PendingRequest:
        self.submitted.append((name, version, request))
        self.terms.append(terms)
        if self.error is not None:
            raise self.error
        made = make_pending(
            {"X": np.zeros((1, 1), np.float32)},
            respond=respond,
            arrived_ns=time.monotonic_ns(),
            queue=self,
        )
        self.pending.append(made)
        return made

    def cancel(self, request: PendingRequest) -> None:
        self.cancelled.append(request)

    def respond(self, request: HttpRequest, body: bytes, pending: PendingRequest) -> HttpResponse:
        assert pending in self.pending
        return HttpResponse(body)


class Bench:
    def __init__(self, patience_s: float = 30) -> None:
        self.routes = FakeRoutes()
        self.other = FakeRoutes()
        self.inference = FakeInference()
        self.app = HttpOverAsgi(
            self.routes,
            self.inference,
            self.inference,  # type: ignore[arg-type]
            TermsReader("x-tenant"),
            Disconnects(),
            patience_s,
            LIMIT,
            {OTHER_PORT: self.other},
        )

    async def call(
        self,
        *chunks: bytes | None,
        path: str = "/v2/x",
        method: str = "POST",
        port: int = 8000,
        refuse: Any = lambda _: None,
        **headers: str,
    ) -> Exchange:
        where = scope(path, method, port, headers)
        exchange = await drive(self.app, where, chunks, refuse=refuse)
        if exchange.sent:
            exchange.check_complete()
            assert exchange.headers[b"content-length"] == str(len(exchange.body)).encode()
        return exchange


@pytest.fixture
async def bench() -> Bench:
    return Bench()


def error_of(exchange: Exchange) -> tuple[int, str]:
    assert exchange.headers[b"content-type"] == b"application/json"
    return exchange.status, json.loads(exchange.body)["error"]


async def test_a_request_and_its_response(bench: Bench) -> None:
    exchange = await bench.call(b"bo", b"", b"dy", method="PUT", content_length="4")
    assert (exchange.status, exchange.body) == (200, b"body")
    assert exchange.headers[b"x-method"] == b"PUT"
    (path, request) = bench.routes.requests[0]
    assert (path, request.headers) == ("/v2/x", {b"content-length": b"4"})


@pytest.mark.parametrize("size", [0, LIMIT])
async def test_bodies_up_to_the_limit(bench: Bench, size: int) -> None:
    assert len((await bench.call(b"x" * size)).body) == size
    assert len((await bench.call(b"x" * size, b"")).body) == size


async def test_a_length_over_the_limit_is_refused_before_anything_is_read(bench: Bench) -> None:
    exchange = await bench.call(b"x" * 50, b"x" * 51, content_length="101")
    assert error_of(exchange) == (413, "the body has 101 bytes or more, the limit is 100")
    assert exchange.received == 0


@pytest.mark.parametrize(
    ("sizes", "received"), [([101], 1), ([101, 5], 1), ([60, 41], 2), ([60, 41, 5], 2)]
)
async def test_a_body_without_length_is_refused_as_soon_as_it_is_too_long(
    bench: Bench, sizes: list[int], received: int
) -> None:
    exchange = await bench.call(*(b"x" * size for size in sizes))
    assert error_of(exchange) == (413, "the body has 101 bytes or more, the limit is 100")
    assert exchange.received == received
    assert bench.routes.requests == []


@pytest.mark.parametrize(
    ("chunks", "length", "text"),
    [
        ([b"abc"], "4", "content-length says 4 bytes, 3 came"),
        ([b"abc"], "2", "content-length says 2 bytes, 3 came"),
        ([b""], "1", "content-length says 1 bytes, 0 came"),
        ([b"abc"], "three", "content-length 'three' is not a number"),
        ([b"abc", None], "9", "the client went away in the middle of its request"),
        ([None], "9", "content-length says 9 bytes, 0 came"),
    ],
)
async def test_bodies_that_are_not_what_they_say(
    bench: Bench, chunks: list[bytes | None], length: str, text: str
) -> None:
    assert error_of(await bench.call(*chunks, content_length=length)) == (400, text)
    assert bench.routes.requests == []


async def test_compressed_bodies(bench: Bench) -> None:
    exchange = await bench.call(gzip.compress(b"x" * LIMIT), content_encoding="gzip")
    assert exchange.body == b"x" * LIMIT
    exchange = await bench.call(gzip.compress(b"x" * (LIMIT + 1)), content_encoding="gzip")
    assert error_of(exchange)[0] == 413
    assert error_of(await bench.call(b"x", content_encoding="gzip"))[0] == 400
    assert error_of(await bench.call(b"x", content_encoding="br"))[0] == 501


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (NotFound("unknown route"), 404, "unknown route"),
        (QueueFull("Exceeds maximum queue size"), 503, "Exceeds maximum queue size"),
        (PenstockError("secret"), 500, HIDDEN_TEXT),
        (KeyError("secret"), 500, HIDDEN_TEXT),
        (OSError(2, "secret"), 500, HIDDEN_TEXT),
        (SystemExit(1), 500, HIDDEN_TEXT),
        (asyncio.CancelledError(), 499, "cancelled"),
    ],
)
async def test_every_error_is_a_response(
    bench: Bench, error: BaseException, status: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.routes.error = error
    assert error_of(await bench.call(b"")) == (status, text)
    assert ("failed" in caplog.text) == (not isinstance(error, PenstockError) and status == 500)


class ClientDisconnectedError(OSError):
    """As the bridge's own."""


async def test_a_client_that_is_gone_leaves_nothing_behind(bench: Bench) -> None:
    error = ClientDisconnectedError()
    exchange = await bench.call(b"", refuse=lambda _: error)
    assert exchange.sent == []
    assert (error.__traceback__, error.__context__) == (None, None)


# ── other ports, and inference in other forms ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/v2", INFER, "/metrics"])
async def test_another_port_has_a_door_of_its_own(bench: Bench, path: str) -> None:
    exchange = await bench.call(b"body", path=path, port=OTHER_PORT)
    assert (exchange.status, exchange.body) == (200, b"body")
    assert [asked for asked, _ in bench.other.requests] == [path]
    assert bench.routes.requests == [] and bench.inference.submitted == []


async def test_a_route_may_lead_to_an_inference(bench: Bench) -> None:
    wire = FakeInference()
    bench.routes.reply = InferCall(wire, "m", "3")
    exchange = await bench.call(b"body", path="/v1/models/m:predict", x_tenant="blue")
    assert exchange.sent == []
    ((name, version, request),) = wire.submitted
    assert (name, version, request.body) == ("m", "3", b"body")
    assert wire.terms[0].tenant == "blue"
    wire.pending[0].respond(wire.pending[0], b"answer")
    assert (exchange.status, exchange.body) == (200, b"answer")
    assert bench.inference.submitted == []


async def test_an_inference_of_a_route_that_is_refused(bench: Bench) -> None:
    wire = FakeInference()
    wire.error = QueueFull("full")
    bench.routes.reply = InferCall(wire, "m")
    assert error_of(await bench.call(b"", path="/v1/models/m:predict")) == (503, "full")


async def test_a_front_that_does_not_know_its_port(bench: Bench) -> None:
    where = scope("/v2", "GET")
    where["server"] = None
    assert (await drive(bench.app, where, [b""])).status == 200


# ── inference ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("path", "version"), [(INFER, ""), ("/v2/models/m/versions/7/infer", "7")])
async def test_an_inference(bench: Bench, path: str, version: str) -> None:
    exchange = await bench.call(b"body", path=path)
    ((name, got_version, request),) = bench.inference.submitted
    assert (name, got_version, request.body) == ("m", version, b"body")
    assert exchange.sent == []
    bench.inference.pending[0].finish(b"response")
    exchange.check_complete()
    assert exchange.body == b"response"


@pytest.mark.parametrize(
    ("headers", "terms"),
    [
        ({}, NO_TERMS),
        ({"x_request_timeout_ms": "0.5"}, CallTerms(500)),
        ({"x_tenant": "search"}, CallTerms(tenant="search")),
        ({"x_tenant": "search", "x_request_timeout_ms": "20"}, CallTerms(20_000, "search")),
    ],
)
async def test_an_inference_brings_its_terms(
    bench: Bench, headers: dict[str, Any], terms: CallTerms, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what it takes to read the body would be told, on a machine that is busy with other things
    monkeypatch.setattr(time, "monotonic_ns", lambda: 1_000_000_000)
    await bench.call(b"", path=INFER, **headers)
    assert bench.inference.terms == [terms]


@pytest.mark.parametrize(
    ("header", "value", "text"),
    [
        ("x_request_timeout_ms", "soon", "X-Request-Timeout-Ms 'soon' is none"),
        ("x_tenant", "x" * 129, "x-tenant 'xxx"),
    ],
)
async def test_bad_terms_are_told_before_anything_is_read(
    bench: Bench, header: str, value: str, text: str
) -> None:
    headers: dict[str, Any] = {header: value}
    exchange = await bench.call(b"", path=INFER, **headers)
    status, error = error_of(exchange)
    assert status == 400
    assert error.startswith(text)
    assert (exchange.received, bench.inference.submitted) == (0, [])


async def test_a_body_that_was_slow_to_come_has_less_time_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = 1_000_000_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)

    async def receive() -> Message:
        nonlocal now_ns
        now_ns += 30_000_000
        return {"type": "http.request", "body": b"", "more_body": False}

    where = scope(INFER, headers={"x_request_timeout_ms": "50"})

    async def send(_: Message) -> None:
        raise AssertionError("it is not answered")

    await bench.app(where, receive, send)
    assert bench.inference.terms == [CallTerms(20_000)]


@pytest.mark.parametrize("later", [False, True])
async def test_a_refusal_says_when_to_come_back(bench: Bench, later: bool) -> None:
    error = QueueFull("full", retry_after_s=1.5)
    bench.inference.error = None if later else error
    exchange = await bench.call(b"", path=INFER)
    if later:
        bench.inference.pending[0].finish(error)
    assert error_of(exchange) == (503, "full")
    assert exchange.headers[b"retry-after"] == b"2"
    assert exchange.headers[b"retry-after-ms"] == b"1500"


async def test_an_inference_that_fails(bench: Bench) -> None:
    calling = asyncio.ensure_future(bench.call(b"", path=INFER))
    await settle()
    bench.inference.pending[0].finish(ModelFailed("division by zero"))
    assert error_of(await calling) == (500, "division by zero")


async def test_a_client_that_is_gone_does_not_disturb_its_batch_mates(bench: Bench) -> None:
    exchange = await bench.call(b"", path=INFER, refuse=lambda _: ConnectionResetError())
    bench.inference.pending[0].finish(b"response")
    assert exchange.sent == []


async def test_a_response_that_cannot_be_made_is_an_error(bench: Bench) -> None:
    exchange = await bench.call(b"", path=INFER)
    bench.inference.respond = None  # type: ignore[assignment,method-assign]
    bench.inference.pending[0].finish(b"response")
    assert error_of(exchange) == (500, HIDDEN_TEXT)


@pytest.mark.parametrize(
    ("path", "method"), [(INFER, "GET"), ("/v2/models/m", "POST"), ("/infer", "POST")]
)
async def test_all_else_goes_to_the_routes(bench: Bench, path: str, method: str) -> None:
    await bench.call(b"", path=path, method=method)
    assert [path for path, _ in bench.routes.requests] == [path]
    assert bench.inference.submitted == []
