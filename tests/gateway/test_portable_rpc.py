"""The portable front's gRPC with gRPC's own server and clients: terms on the way in, refusals on the way out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from penstock.access.rules import Rule
from penstock.access.session import OPEN, AnySession
from penstock.errors import DeadlineExceeded, NotFound, PenstockError, QueueFull
from penstock.gateway.grpc_service import MODEL_INFER
from penstock.gateway.portable import RpcTable
from penstock.gateway.terms import TermsReader
from penstock.types import NO_TERMS, CallTerms

RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.001s",
                "maxBackoff": "0.001s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


class FakeService:
    """A GrpcService that answers what it got, once it has refused as often as it should."""

    def __init__(self) -> None:
        self.terms: list[CallTerms] = []
        self.arrived_s: list[float] = []
        self.refusals: list[PenstockError] = []
        self.rules: dict[str, Rule] = {}
        self.unary = {"/refuse": self._refuse}
        self.streams = {"/stream": self._stream}

    async def model_infer(self, message: bytes, terms: CallTerms) -> bytes:
        self.terms.append(terms)
        return await self._refuse(message, OPEN)

    async def _refuse(self, message: bytes, _: AnySession) -> bytes:
        self.arrived_s.append(time.monotonic())
        if self.refusals:
            raise self.refusals.pop(0)
        return message

    async def _stream(self, messages: AsyncIterator[bytes], _: AnySession) -> AsyncIterator[bytes]:
        async for message in messages:
            yield await self._refuse(message, OPEN)


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def address(service: FakeService) -> AsyncIterator[str]:
    """Where a real server of that service is."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((RpcTable(service, TermsReader("x-tenant"), None),))  # type: ignore[arg-type]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


async def infer(channel: grpc.aio.Channel, **options: Any) -> bytes:
    answer: bytes = await channel.unary_unary(MODEL_INFER)(b"request", **options)
    return answer


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_without_terms(service: FakeService, channel: grpc.aio.Channel) -> None:
    assert await infer(channel) == b"request"
    assert service.terms == [NO_TERMS]


async def test_timeout_and_tenant(service: FakeService, channel: grpc.aio.Channel) -> None:
    await infer(channel, timeout=60, metadata=[("x-tenant", "search")])
    (terms,) = service.terms
    assert terms.tenant == "search"
    # gRPC's core rounds what it sends up, by a hundredth at most
    assert terms.timeout_us is not None and 1_000_000 < terms.timeout_us <= 60_600_000


async def test_a_bad_tenant(service: FakeService, channel: grpc.aio.Channel) -> None:
    error = await failure(infer(channel, metadata=[("x-tenant", "x" * 129)]))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "x-tenant" in (error.details() or "")
    assert service.terms == []


@pytest.mark.parametrize("path", ["/refuse", MODEL_INFER, "/stream"])
async def test_a_refusal_says_when_to_come_back(
    service: FakeService, channel: grpc.aio.Channel, path: str
) -> None:
    service.refusals = [QueueFull("voll für jetzt", retry_after_s=1.25)]
    if path == "/stream":
        stream = channel.stream_unary(path)(iter([b"x"]))
        error = await failure(stream)
    else:
        error = await failure(channel.unary_unary(path)(b"x"))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "voll für jetzt")
    trailers: dict[str, Any] = dict(error.trailing_metadata())
    assert trailers["grpc-retry-pushback-ms"] == "1250"
    status = Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message) == (14, "voll für jetzt")
    retry = RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1250


@pytest.mark.parametrize("error", [QueueFull("full"), NotFound("no"), DeadlineExceeded("late")])
async def test_nothing_is_promised_that_nobody_knows(
    service: FakeService, channel: grpc.aio.Channel, error: PenstockError
) -> None:
    service.refusals = [error]
    trailers = dict((await failure(infer(channel))).trailing_metadata())
    assert not {"grpc-retry-pushback-ms", "grpc-status-details-bin"} & trailers.keys()


async def test_grpcs_own_retries_come_back_when_they_are_told(
    service: FakeService, address: str
) -> None:
    service.refusals = [QueueFull("full", retry_after_s=0.2), QueueFull("full", retry_after_s=0.1)]
    options = [("grpc.service_config", json.dumps(RETRIES))]
    with grpc.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(MODEL_INFER)
        assert await asyncio.to_thread(call, b"request", timeout=60) == b"request"
    first, second, third = service.arrived_s
    # without, they would come back after 1 ms
    assert second - first >= 0.19
    assert third - second >= 0.09
