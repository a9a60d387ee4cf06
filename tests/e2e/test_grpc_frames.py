"""gRPC frames that no library would send: each gets its code at once, and the server goes on."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from grpc_calls import call, infer, infer_request, pb
from raw_grpc import RawGrpc, prefixed
from served import Served

pytestmark = pytest.mark.e2e

OK, INVALID, EXHAUSTED, UNIMPLEMENTED = 0, 3, 8, 12
GOOD = infer_request(outputs=["Y"]).SerializeToString()


@pytest.fixture(autouse=True)
def goes_on(channel: grpc.Channel) -> Iterator[None]:
    """Whatever came before, the next good request is answered."""
    yield
    assert infer(channel, infer_request()).model_name == "puppet"


@pytest.fixture
def raw(server: Served) -> Iterator[RawGrpc]:
    """A connection of our own."""
    with RawGrpc(server.settings.grpc_port) as connection:
        yield connection


def test_by_hand(raw: RawGrpc) -> None:
    """What the others change is all that is wrong with them."""
    outcome = raw.call(prefixed(GOOD))
    assert outcome.status == OK
    response = pb.ModelInferResponse.FromString(outcome.data[5:])
    assert struct.unpack(">BI", outcome.data[:5]) == (0, len(outcome.data) - 5)
    assert response.raw_output_contents == [np.array([1, 2], np.float32).tobytes()]


def test_without_te_trailers(server: Served, raw: RawGrpc) -> None:
    """D8: proxies drop the header; the status must come all the same. gRPC's own server refuses such a call."""
    good = raw.call(prefixed(GOOD), te=False)
    bad = raw.call(prefixed(b"\xff"), te=False)
    if server.front == "envoy":
        assert (good.status, bad.status) == (OK, INVALID)
    else:
        assert OK not in (good.status, bad.status)


def test_slow_bytes(raw: RawGrpc) -> None:
    """A message may come in any pieces."""
    stream = raw.start()
    for byte in prefixed(GOOD):
        raw.send(stream, bytes([byte]), end=False)
    raw.send(stream, b"")
    assert raw.outcome(stream).status == OK


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (prefixed(GOOD, flag=1), []),
        (prefixed(GOOD, flag=1), [("grpc-encoding", "identity")]),
        (prefixed(GOOD, flag=1), [("grpc-encoding", "gzip")]),
        (prefixed(gzip.compress(GOOD)[:-4], flag=1), [("grpc-encoding", "gzip")]),
        (prefixed(GOOD, flag=1), [("grpc-encoding", "brotli")]),
        (prefixed(GOOD, length=len(GOOD) - 3), []),
        (prefixed(GOOD, length=len(GOOD) + 3), []),
        (prefixed(GOOD) * 2, []),
        (prefixed(GOOD, length=2**32 - 1), []),
        (b"", []),
        (b"\x00\x00", []),
    ],
    ids=[
        *("compressed flag alone", "compressed by identity", "not gzip", "gzip cut off"),
        *("unknown encoding", "length too small", "length too large", "two messages"),
        *("length of 4 GiB", "empty body", "prefix cut off"),
    ],
)
def test_frames(server: Served, raw: RawGrpc, body: bytes, headers: list[tuple[str, str]]) -> None:
    """An error at once, never an answer, never silence. Which of the codes gRPC's own server gives is its affair."""
    before = server.metric("nv_inference_request_success", "puppet")
    outcome = raw.call(body, headers=headers)
    assert outcome.status != OK
    assert outcome.data == b""
    assert server.metric("nv_inference_request_success", "puppet") == before
    if server.front == "envoy":
        codes = {"grpc-encoding": UNIMPLEMENTED} if ("grpc-encoding", "brotli") in headers else {}
        expected = EXHAUSTED if body[:5] == b"\x00\xff\xff\xff\xff" else INVALID
        assert outcome.status == codes.get("grpc-encoding", expected)
        assert outcome.message


@pytest.mark.parametrize(
    ("encoding", "compressed"), [("gzip", gzip.compress(GOOD)), ("deflate", zlib.compress(GOOD))]
)
def test_compressed_frames(raw: RawGrpc, encoding: str, compressed: bytes) -> None:
    outcome = raw.call(prefixed(compressed, flag=1), headers=[("grpc-encoding", encoding)])
    assert outcome.status == OK


def test_an_unknown_method(raw: RawGrpc) -> None:
    outcome = raw.call(prefixed(b""), "/inference.GRPCInferenceService/Nothing")
    assert outcome.status == UNIMPLEMENTED


def test_more_after_the_message(server: Served, raw: RawGrpc) -> None:
    """gRPC's own server drops the beginning of a message that never comes."""
    outcome = raw.call(prefixed(GOOD) + b"x")
    assert outcome.status == (INVALID if server.front == "envoy" else OK)


def test_half_a_message_and_gone(server: Served, channel: grpc.Channel) -> None:
    for ending in ("reset", "close"):
        with RawGrpc(server.settings.grpc_port) as connection:
            stream = connection.start()
            connection.send(stream, prefixed(GOOD)[:-3], end=False)
            if ending == "reset":
                connection.reset(stream)
                assert connection.call(prefixed(GOOD)).status == OK
    assert call(channel, "ServerLive") == b"\x08\x01"
