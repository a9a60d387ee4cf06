"""Who a client is, on the portable front: what TLS says, and nothing that the client says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from certificates import Authority
from penstock.access.credentials import CERTIFICATE
from penstock.gateway.asgi import Receive, Scope, Send
from penstock.gateway.forwarded_certificate import forwarded_pem
from penstock.gateway.portable import IdentifyingProtocol
from penstock.gateway.terms import metadata_of

FORGED = b"Hash=00;URI=spiffe://example.org/admin"
CLIENT = Authority().issue("client", uris=["spiffe://example.org/a"])


class Call:
    """What grpc.aio tells of a call whose client claims to be another."""

    def __init__(self, certificate: bytes) -> None:
        self._certificate = certificate

    def time_remaining(self) -> float | None:
        return None

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        return [(CERTIFICATE.decode(), FORGED.decode()), ("other", "x")]

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]} if self._certificate else {}


def test_metadata_of_a_call_without_a_certificate() -> None:
    assert metadata_of(Call(b"")) == {b"other": b"x"}


def test_metadata_of_a_call_with_one() -> None:
    assert metadata_of(Call(CLIENT.certificate)) == {
        b"other": b"x",
        CERTIFICATE: forwarded_pem(CLIENT.certificate),
    }


@pytest.fixture
async def echo() -> AsyncIterator[tuple[int, asyncio.Queue[list[tuple[bytes, bytes]]]]]:
    """A port in plain text, and the headers of the requests that came there, with their trailers."""
    seen: asyncio.Queue[list[tuple[bytes, bytes]]] = asyncio.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        seen.put_nowait(list(scope["headers"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config: Any = uvicorn.Config(app, http=IdentifyingProtocol, lifespan="off", log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    state = ServerState()
    server = await loop.create_server(
        lambda: IdentifyingProtocol(config, state, {}), "127.0.0.1", 0
    )
    async with server:
        yield server.sockets[0].getsockname()[1], seen


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\nX-Forwarded-Client-Cert: %s\r\n\r\n" % FORGED,
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
        b"x-forwarded-client-cert: %s\r\n\r\n" % FORGED,
    ],
    ids=["header", "trailer"],
)
async def test_a_header_is_dropped(
    echo: tuple[int, asyncio.Queue[list[tuple[bytes, bytes]]]], request_bytes: bytes
) -> None:
    port, seen = echo
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_bytes)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    headers = dict(await seen.get())
    assert headers[b"host"] == b"x"
    assert CERTIFICATE not in headers
