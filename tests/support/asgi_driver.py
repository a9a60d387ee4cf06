"""Drives an ASGI app in process: what the bridge would hand it, and what it sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.gateway.asgi import App, Message, Scope


@dataclass
class Exchange:
    """One request's events, and the response's."""

    sent: list[Message] = field(default_factory=list)
    received: int = 0
    """Events that the app took."""

    @property
    def start(self) -> Message:
        return self.sent[0]

    @property
    def status(self) -> int:
        return int(self.start["status"])

    @property
    def body(self) -> bytes:
        return b"".join(e["body"] for e in self.sent if e["type"] == "http.response.body")

    @property
    def headers(self) -> dict[bytes, bytes]:
        """Of the start and the trailers."""
        return {
            name: value
            for event in self.sent
            if event["type"] != "http.response.body"
            for name, value in event["headers"]
        }

    @property
    def grpc(self) -> tuple[int, str]:
        """Status and message of a complete gRPC response."""
        self.check_complete()
        headers = self.headers
        return int(headers[b"grpc-status"]), headers.get(b"grpc-message", b"").decode()

    def check_complete(self) -> None:
        """One start, a body that ends, and trailers exactly where they were announced."""
        types = [event["type"].removeprefix("http.response.") for event in self.sent]
        assert types[0] == "start" and types.count("start") == 1, types
        trailers = self.start.get("trailers", False)
        assert types.count("trailers") == trailers, types
        bodies = [event for event in self.sent if event["type"] == "http.response.body"]
        assert types[1:] == ["body"] * len(bodies) + ["trailers"] * trailers, types
        assert [bool(event.get("more_body")) for event in bodies] == [True] * (len(bodies) - 1) + [
            False
        ]


async def drive(
    app: App,
    scope: Scope,
    chunks: Sequence[bytes | None],
    *,
    refuse: Callable[[Message], Exception | None] = lambda _: None,
) -> Exchange:
    """Give the app a body in chunks, of which the last is the end, or None for a client that goes away.

    `send` acts when it is called, as the bridge's does. `refuse` says which events it raises for.
    """
    exchange = Exchange()
    events = [
        {"type": "http.disconnect"}
        if chunk is None
        else {"type": "http.request", "body": chunk, "more_body": n + 1 < len(chunks)}
        for n, chunk in enumerate(chunks)
    ]

    async def receive() -> Message:
        if exchange.received < len(events):
            exchange.received += 1
            return events[exchange.received - 1]
        return {"type": "http.request", "body": b"", "more_body": False}

    def send(event: Message) -> Any:
        if error := refuse(event):
            raise error
        exchange.sent.append(event)
        return _nothing()

    await app(scope, receive, send)
    return exchange


def _nothing() -> asyncio.Future[None]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def scope(
    path: str, method: str = "POST", port: int = 8000, headers: Mapping[str, str] | None = None
) -> Scope:
    """A request's scope; the header `content_type` is content-type."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "server": ("127.0.0.1", port),
        "headers": [
            (name.replace("_", "-").encode(), value.encode())
            for name, value in (headers or {}).items()
        ],
    }
