"""Senders of garbage: raw bytes, lies about lengths, broken JSON and protobuf, on both ports."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
from grpc import aio

from penstock_loadtest.chaos.asking import Scene
from penstock_loadtest.chaos.books import Kind, Outcome
from penstock_loadtest.chaos.clients import CHANNEL
from penstock_loadtest.chaos.garbage_bytes import HTTP_GARBAGE, RAW_GARBAGE, grpc_bodies

NOBODY: Final = "(garbage)"
"""Stands for the model in the books: garbage reaches none."""
METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
PATIENCE_S: Final = 20.0
LINGER_S: Final = 0.3
"""How long a sender that is owed nothing waits for an answer before it closes."""
MEAN_PAUSE_S: Final = 0.05

OWED: Final = frozenset({Kind.GARBAGE_REFUSED})
ANY_END: Final = frozenset({Kind.GARBAGE_REFUSED, Kind.GARBAGE_DROPPED})
MALFORMED: Final = (
    *(grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND),
    *(grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED),
)
"""What says clearly that the request was wrong."""


async def send_garbage(scene: Scene) -> None:
    """All kinds in turn by chance, until the scene ends."""
    rng = scene.rng("garbage")
    senders: list[Callable[[Scene, random.Random], Awaitable[None]]] = [
        _http_garbage,
        _raw_garbage,
        _bad_protobuf,
        _bad_frames,
    ]
    while not scene.stop.is_set():
        await rng.choice(senders)(scene, rng)
        await asyncio.sleep(rng.expovariate(1 / MEAN_PAUSE_S))


async def _http_garbage(scene: Scene, rng: random.Random) -> None:
    """Whole HTTP requests that make no sense: each is owed a 4xx with the protocol's error."""
    name, make = rng.choice(HTTP_GARBAGE)
    ticket = scene.books.open("garbage-http", NOBODY, OWED)
    try:
        answer = await _exchange(scene.http, make(rng), PATIENCE_S)
    except (OSError, TimeoutError) as error:
        outcome = Outcome(Kind.MISSING, f"{name}: {error!r}")
    else:
        outcome = _refusal(name, answer)
    scene.books.close(ticket, outcome)


async def _raw_garbage(scene: Scene, rng: random.Random) -> None:
    """Bytes that are no request, on either port: all that is asked is that they are not answered as one."""
    name, make = rng.choice(RAW_GARBAGE)
    ticket = scene.books.open("garbage-raw", NOBODY, ANY_END)
    address = rng.choice([scene.http, scene.grpc])
    try:
        answer = await _exchange(address, make(rng), LINGER_S)
    except (OSError, TimeoutError):
        outcome = Outcome(Kind.GARBAGE_DROPPED)
    else:
        status = _status(answer)
        outcome = Outcome(Kind.GARBAGE_REFUSED if status else Kind.GARBAGE_DROPPED)
        if status and not 400 <= status < 500 and status != 505:
            outcome = Outcome(Kind.UNEXPLAINED, f"{name}: {answer[:300]!r}")
    scene.books.close(ticket, outcome)


async def _bad_protobuf(scene: Scene, rng: random.Random) -> None:
    """A whole gRPC message that is no request."""
    message = rng.randbytes(rng.randint(1, 300))
    ticket = scene.books.open("garbage-protobuf", NOBODY, OWED)
    async with aio.insecure_channel(scene.grpc, CHANNEL) as channel:
        try:
            answer = await channel.unary_unary(METHOD)(message, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            said = f"{error.code().name}: {error.details()}"
            refused = error.code() in MALFORMED
            kind = Kind.GARBAGE_REFUSED if refused else Kind.UNEXPLAINED
            outcome = Outcome(kind, f"{message.hex()} got {said}")
        else:
            outcome = Outcome(Kind.UNEXPLAINED, f"{message.hex()} was answered: {answer!r:.200}")
    scene.books.close(ticket, outcome)


async def _bad_frames(scene: Scene, rng: random.Random) -> None:
    """gRPC calls whose length prefix lies, whose flag is wrong, that are empty, or that never end."""
    name, body, ends = rng.choice(grpc_bodies(rng))
    ticket = scene.books.open("garbage-frames", NOBODY, OWED if ends else ANY_END)
    try:
        async with asyncio.timeout(PATIENCE_S if ends else LINGER_S):
            status = await _h2_call(scene.grpc, body, ends)
    except (OSError, TimeoutError, h2.exceptions.ProtocolError) as error:
        kind = Kind.MISSING if ends else Kind.GARBAGE_DROPPED
        outcome = Outcome(kind, f"{name}: {error!r}")
    else:
        kind = Kind.UNEXPLAINED if status == "0" else Kind.GARBAGE_REFUSED
        outcome = Outcome(kind, f"{name}: grpc-status {status}")
    scene.books.close(ticket, outcome)


def _refusal(name: str, answer: bytes) -> Outcome:
    status = _status(answer)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not 400 <= status < 500:
        return Outcome(Kind.UNEXPLAINED, f"{name}: {answer[:300]!r}")
    if b"application/json" in head.lower():
        try:
            if isinstance(json.loads(body)["error"], str):
                return Outcome(Kind.GARBAGE_REFUSED)
        except (ValueError, KeyError, TypeError):
            pass
        return Outcome(Kind.UNEXPLAINED, f"{name}: no error text in {answer[:300]!r}")
    return Outcome(Kind.GARBAGE_REFUSED)


def _status(answer: bytes) -> int:
    """The HTTP status; 0 where the answer is none of HTTP/1."""
    words = answer.split(maxsplit=2)
    if len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1].isdigit():
        return int(words[1])
    return 0


async def _exchange(address: str, data: bytes, wait_s: float) -> bytes:
    """Send, and read until the server closes or nothing more is owed."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        async with asyncio.timeout(wait_s):
            await writer.drain()
            return await reader.read()
    finally:
        writer.close()


async def _h2_call(address: str, body: bytes, ends: bool) -> str:
    """A call's grpc-status; `reset` where the stream or connection was ended without one."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        connection.initiate_connection()
        connection.send_headers(
            1,
            [
                *((":method", "POST"), (":scheme", "http"), (":path", METHOD)),
                *((":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")),
            ],
        )
        connection.send_data(1, body, end_stream=ends)
        writer.write(connection.data_to_send())
        await writer.drain()
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if (status := _grpc_status(event)) is not None:
                    return status
            writer.write(connection.data_to_send())
            await writer.drain()
    finally:
        writer.close()
    return "reset"


def _grpc_status(event: h2.events.Event) -> str | None:
    if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
        return "reset"
    if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
        headers = {str(name): str(value) for name, value in event.headers or ()}
        if headers.get(":status", "200") != "200":
            return f"HTTP {headers[':status']}"
        return headers.get("grpc-status")
    return None
