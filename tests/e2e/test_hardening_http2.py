"""HTTP/2 from attackers, on the ports of HTTP and gRPC: floods of frames, bombs in headers, requests that are none. The
connection or the stream ends, nothing grows, and nobody else notices."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import Final

import pytest

from attacks import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    H2,
    HEADERS,
    LIVE,
    PING,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW,
    block,
    bystander,
    frame,
    in_pieces,
)
from raw_grpc import RawGrpc, prefixed
from served import Served, descriptors
from supervised import eventually

pytestmark = pytest.mark.e2e

BOTH = END_STREAM | END_HEADERS
CANCEL = struct.pack(">I", 8)
DEADLINE_EXCEEDED = 4
ROUNDS = 20
"""Each of a thousand frames or so."""


@pytest.fixture
def port(victim: Served) -> Iterator[int]:
    """Of gRPC; a polite client is there throughout. uvicorn has no HTTP/2, so that is all of the portable front's;
    Envoy has one listener for all ports."""
    before = descriptors(victim.gateway)
    with bystander(victim, mib=400):
        yield victim.settings.grpc_port
    eventually(lambda: descriptors(victim.gateway) <= before + 4, "connections are left")


def test_by_hand(port: int) -> None:
    """What the others change is all that is wrong with them."""
    with H2(port) as connection:
        connection.send(frame(HEADERS, END_HEADERS, 1, block()))
        connection.send(frame(DATA, END_STREAM, 1, prefixed(b"")))
        ended = connection.ending(0.3)
    assert ended.has(HEADERS)
    assert ended.answered
    assert not ended.refused


MISLEADING: Final = [
    block([(b":path", b"/x")]),
    block([(b":status", b"200")]),
    block([(b"X-Upper", b"a")]),
    block([(b"transfer-encoding", b"chunked")]),
    block([(b"connection", b"close")]),
    block([(b"te", b"gzip")]),
    block([(b"content-length", b"5")]),
    block([(b"x", b"a\r\nx-api-key: b")]),
    block([(b"x\r\ny", b"a")]),
    block([(b"x", b"a\0b")]),
    block([(b"x y", b"a")]),
    block(method=b"GET / HTTP/1.1\r\nX: y"),
    block(path=b"/a b HTTP/1.1\r\nX: y"),
    block(path=b""),
    block(path=b"etc/passwd"),
    block(path=b"*"),
    block(path=b"/a\0b"),
]
"""Fields that would be something else once somebody has made HTTP/1.1 of them (downgrade smuggling)."""


def test_fields_that_would_be_something_else_in_http_1(victim: Served, port: int) -> None:
    """Nothing is made of them. gRPC's own server lets some pass as metadata, of which we use what we know by name."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(H2(port)) for _ in MISLEADING]
        for connection, data in zip(connections, MISLEADING, strict=True):
            connection.send(frame(HEADERS, BOTH, 1, data))
        silence_s = 4.0 if victim.front == "envoy" else 0.2
        for connection, data in zip(connections, MISLEADING, strict=True):
            ended = connection.ending(silence_s, at_refusal=True)
            assert not ended.answered, data
            assert ended.refused or victim.front != "envoy", data


# ── bombs in headers ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data",
    [
        in_pieces(block([(b"x-%d" % n, b"y") for n in range(10_000)])),
        in_pieces(block([(b"x", b"a" * (1 << 20))])),
        # one entry of the table, named again and again: 45 kB that would become 175 MB
        in_pieces(block([(b"x", b"a" * 3900)]) + b"\xbe" * 45_000),
        frame(HEADERS, BOTH, 1, b"\x3f" + b"\xff" * 100 + b"\x7f" + block()),
    ],
    ids=["10000 headers", "a header of 1 MiB", "HPACK bomb", "an integer without end"],
)
def test_bombs_of_headers(victim: Served, port: int, data: bytes) -> None:
    with H2(port) as connection:
        connection.send(data)
        # an answer would come at once; that Envoy refuses takes it a moment
        ended = connection.ending(3.0 if victim.front == "envoy" else 1.0, at_refusal=True)
    assert not ended.answered
    if victim.front == "envoy":
        assert ended.refused


@pytest.mark.parametrize("piece", [b"\x00\x01a\x01b" * 3000, b""], ids=["full", "empty"])
def test_continuations_without_end(victim: Served, port: int, piece: bytes) -> None:
    """CVE-2024-27316 and others."""
    with H2(port) as connection:
        connection.send(frame(HEADERS, 0, 1, block()))
        connection.flood(frame(CONTINUATION, 0, 1, piece) * (8 if piece else 1000), 100)
        ended = connection.ending(3.0, at_refusal=True)
    if victim.front == "envoy" or not piece:
        assert ended.refused
    assert not ended.answered


# ── floods ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "stream", "payload"),
    [
        (SETTINGS, 0, b""),
        (PING, 0, b"12345678"),
        (PRIORITY, 1, b"\0\0\0\0\1"),
        (WINDOW, 0, b"\0\0\0\1"),
        (GOAWAY, 0, b"\0" * 8),
    ],
    ids=["SETTINGS", "PING", "PRIORITY", "WINDOW_UPDATE", "GOAWAY"],
)
def test_floods(port: int, kind: int, stream: int, payload: bytes) -> None:
    """CVE-2019-9512, 9513, 9515: who never reads what they are answered with fills no memory with it."""
    with H2(port) as connection:
        connection.flood(frame(kind, 0, stream, payload) * 1000, ROUNDS)


def test_empty_frames(port: int) -> None:
    """CVE-2019-9518."""
    with H2(port) as connection:
        connection.send(frame(HEADERS, END_HEADERS, 1, block()))
        connection.flood(frame(DATA, 0, 1) * 1000, ROUNDS)
        assert connection.ending(3.0, at_refusal=True).refused


@pytest.mark.parametrize("data", [frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 3, b"\xff" * 100_000])
def test_frames_that_are_none(port: int, data: bytes) -> None:
    with H2(port) as connection:
        connection.send(data)
        ended = connection.ending(0.5)
    assert ended.closed or not ended.has(DATA)


@pytest.mark.parametrize("rpc", [LIVE, b"/inference.GRPCInferenceService/ModelInfer"])
def test_rapid_resets(victim: Served, port: int, rpc: bytes) -> None:
    """CVE-2023-44487."""
    call = block(path=rpc)
    with H2(port) as connection:
        for start in range(0, ROUNDS * 1000, 1000):
            numbers = range(1 + 2 * start, 1 + 2 * (start + 1000), 2)
            calls = (
                frame(HEADERS, END_HEADERS, n, call) + frame(RST, 0, n, CANCEL) for n in numbers
            )
            if not connection.send(b"".join(calls)):
                break
        if victim.front == "envoy":
            assert connection.ending(3.0).closed


def test_more_streams_than_one_connection_may_have(port: int) -> None:
    with H2(port) as connection:
        for number in range(1, 6000, 2):
            connection.send(frame(HEADERS, END_HEADERS, number, block()))
        ended = connection.ending(0.5)
    refused = {stream for kind, stream, _ in ended.frames if kind == RST}
    assert len(refused) >= 3000 - 1024


# ── slow clients ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_messages_that_never_come(victim: Served) -> None:
    with RawGrpc(victim.settings.grpc_port) as one, RawGrpc(victim.settings.grpc_port) as other:
        half, nothing = one.start(), other.start()
        one.send(half, prefixed(b"x" * 100)[:-50], end=False)
        outcomes = one.outcome(half), other.outcome(nothing)
    assert [outcome.status for outcome in outcomes] == [DEADLINE_EXCEEDED] * 2, outcomes
    assert "Exception in callback" not in victim.log


def test_windows_that_stay_closed(victim: Served, port: int) -> None:
    """CVE-2019-9511, 9517: answers that nobody lets come are not kept for ever."""
    with H2(port, window=0) as connection:
        for number in range(1, 400, 2):
            connection.send(frame(HEADERS, END_HEADERS, number, block()))
            connection.send(frame(DATA, END_STREAM, number, prefixed(b"")))
        if victim.front == "envoy":
            ended = connection.ending(5.0, at_refusal=True)
            assert ended.refused
