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
from pending import pending
from penstock.errors import ModelFailed, NotFound, PenstockError, QueueFull
from penstock.gateway.disconnects import Disconnects
from penstock.gateway.http_asgi import HttpOverAsgi
from penstock.gateway.http_types import HttpRequest, HttpResponse
from penstock.gateway.status import HIDDEN_TEXT
from penstock.workers.request import PendingRequest, Respond

LIMIT = 100
GRPC_PORT = 8001
METRICS_PORT = 8002
INFER = "/v2/models/m/infer"


class FakeRoutes:
    """HttpRoutes that echo."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, HttpRequest]] = []
        self.error: BaseException | None = None

    async def __call__(self, path: str, request: HttpRequest) -> HttpResponse:
        self.requests.append((path, request))
        if self.error is not None:
            raise self.error
        return HttpResponse(request.body, headers=(("x-method", request.method),))

    def metrics(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(b"nv_metrics 1", content_type="text/plain")


class FakeInference:
    """HttpInference whose requests wait for the test."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, str, HttpRequest]] = []
        self.pending: list[PendingRequest] = []
        self.cancelled: list[PendingRequest] = []

    async def submit(
        self, name: str, version: str, request: HttpRequest, respond: Respond
    ) -> PendingRequest:
        self.submitted.append((name, version, request))
        made = pending(
            {"X": np.zeros((1, 1), np.float32)},
            respond=respond,
            arrived_ns=time.monotonic_ns(),
            queue=self,
        )
        self.pending.append(made)
        return made

    def cancel(self, request: PendingRequest) -> None:
        self.cancelled.append(request)

    def respond(self, request: HttpRequest, body: bytes, made: PendingRequest) -> HttpResponse:
        assert made in self.pending
        return HttpResponse(body)


class Bench:
    def __init__(self) -> None:
        self.routes = FakeRoutes()
        self.inference = FakeInference()
        self.app = HttpOverAsgi(
            self.routes,  # type: ignore[arg-type]
            self.inference,  # type: ignore[arg-type]
            Disconnects(),
            LIMIT,
            METRICS_PORT,
            GRPC_PORT,
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


# ── the metrics port ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
async def test_the_metrics_port(bench: Bench, path: str) -> None:
    exchange = await bench.call(b"", path=path, method="GET", port=METRICS_PORT)
    assert (exchange.status, exchange.body) == (200, b"nv_metrics 1")


@pytest.mark.parametrize("path", ["/v2", INFER, "/"])
async def test_the_metrics_port_has_nothing_else(bench: Bench, path: str) -> None:
    exchange = await bench.call(b"", path=path, port=METRICS_PORT)
    assert error_of(exchange) == (404, "this port has /metrics only")
    assert bench.routes.requests == [] and bench.inference.submitted == []


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
