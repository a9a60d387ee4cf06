"""HTTP/1.1 from attackers: smuggled requests, bombs of headers, clients that never finish. Each is refused at once, and
nobody else notices."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from attacks import GOOD, bystander, chunked, exchange, post, resident_mib
from served import Served, descriptors
from supervised import eventually

pytestmark = pytest.mark.e2e

SMUGGLED = b"GET /v2/models/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTH = b"Content-Length: %d" % len(GOOD)
CHUNKED = b"Transfer-Encoding: chunked"
PATIENCE_S = 1.0
"""Of the victim."""


@pytest.fixture
def port(victim: Served) -> Iterator[int]:
    """Of HTTP; a polite client is there throughout."""
    with bystander(victim):
        yield victim.settings.http_port


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"0\r\n\r\n" + SMUGGLED, (b"Content-Length: 60", CHUNKED)),
        (b"0\r\n\r\n" + SMUGGLED, (CHUNKED, b"Content-Length: 60")),
        (chunked(GOOD), (b"Transfer-Encoding: xchunked",)),
        (chunked(GOOD), (b"Transfer-Encoding: chunked, identity",)),
        (chunked(GOOD), (b"Transfer-Encoding: identity",)),
        (chunked(GOOD), (CHUNKED, b"Transfer-Encoding: identity")),
        (chunked(GOOD), (CHUNKED, CHUNKED)),
        (chunked(GOOD), (b"Transfer-Encoding : chunked",)),
        (chunked(GOOD), (b"Transfer-Encoding:\x0bchunked",)),
        (chunked(GOOD), (b"Transfer-Encoding: chunked\0",)),
        (chunked(GOOD), (b'Transfer-Encoding: "chunked"',)),
        (GOOD, (LENGTH, LENGTH)),
        (GOOD, (LENGTH, b"Content-Length: 3")),
        (GOOD, (LENGTH + b", 3",)),
        (GOOD, (b"Content-Length: +%d" % len(GOOD),)),
        (GOOD, (b"Content-Length: 0x%x" % len(GOOD),)),
        (GOOD, (b"Content-Length: %d" % (2**64 + len(GOOD)),)),
        (b"-2\r\n{}\r\n0\r\n\r\n", (CHUNKED,)),
        (b"0x2\r\n{}\r\n0\r\n\r\n", (CHUNKED,)),
        (b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n", (CHUNKED,)),
        (b"2\n{}\n0\n\n", (CHUNKED,)),
        (b"2;a\n{}\r\n0\r\n\r\n" + SMUGGLED, (CHUNKED,)),
        (GOOD, (LENGTH, b"X Y: z")),
        (GOOD, (LENGTH, b"X\0Y: z")),
        (GOOD, (LENGTH, b"X: a\0b")),
        (GOOD, (LENGTH, b": z")),
        (GOOD, (LENGTH, b"no colon")),
    ],
)
def test_a_request_that_can_be_read_in_two_ways_is_none(
    port: int, body: bytes, fields: tuple[bytes, ...]
) -> None:
    """A proxy before us might read it in the other way, and take for the next client's what an attacker wrote."""
    answer = exchange(port, post(body, *fields))
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 501"), answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"smuggled" not in answer


@pytest.mark.parametrize(
    "fields",
    [
        (b"X-A: b\r\n c",),
        (b"X-A: b\r\n\tTransfer-Encoding: chunked",),
        (b"X: a\rTransfer-Encoding: chunked",),
    ],
    ids=["folded line", "folded framing", "bare CR"],
)
def test_a_value_over_lines_is_one_value_or_refused(port: int, fields: tuple[bytes, ...]) -> None:
    """RFC 9112 has both; what it must never be is a field of its own."""
    answer = exchange(port, post(GOOD, LENGTH, *fields))
    assert answer[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 400"), answer


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
def test_an_upgrade_leads_nowhere(port: int, upgrade: bytes) -> None:
    """Neither past the framing (h2c smuggling), nor to a connection that nobody watches."""
    fields = (b"Connection: Upgrade, HTTP2-Settings, close", b"Upgrade: " + upgrade)
    asked = b"\r\n".join([b"GET /v2/health/live HTTP/1.1", b"Host: x", *fields, b"", b""])
    answer = exchange(port, asked)
    assert answer[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 403"), answer


@pytest.mark.parametrize(
    "data",
    [
        post(GOOD, LENGTH, *(b"X-%d: y" % n for n in range(10_000))),
        post(GOOD, LENGTH, *(b"X-%d: y" % n for n in range(101))),
        post(GOOD, LENGTH, b"X: " + b"a" * (1 << 20)),
        post(GOOD, LENGTH, path=b"/v2/models/" + b"a" * (1 << 20)),
        post(chunked(GOOD)[:-2] + b"X-T: yyyyyyyy\r\n" * 5000 + b"\r\n", CHUNKED),
    ],
    ids=["10000 headers", "101 headers", "a header of 1 MiB", "a path of 1 MiB", "5000 trailers"],
)
def test_bombs_of_headers(port: int, data: bytes) -> None:
    answer = exchange(port, data)
    # the rest of what was sent may reset the connection before the answer is read
    assert answer[:12] in (b"HTTP/1.1 431", b""), answer


def test_headers_without_end_are_not_kept(victim: Served, port: int) -> None:
    """Of each, no more than the limit is read, whether in the head, or in a trailer behind the body."""
    before = resident_mib(victim)
    endless = b"a" * (1 << 20)
    head = b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: "
    trailer = post(chunked(GOOD)[:-2] + b"X: ", CHUNKED)
    for begin in (head, trailer):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
            sock.sendall(begin)
            with pytest.raises(ConnectionError):
                for _ in range(24):
                    sock.sendall(endless)
                pytest.fail("all of it was taken")
    assert resident_mib(victim) - before < 16


# ── slow clients: a server of little patience ───────────────────────────────────────────────────────────────────────


def drip(port: int, begin: bytes, drop: bytes) -> bytes:
    """Send the beginning, and a drop now and then until the server ends it; what it said."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.05) as sock:
        sock.sendall(begin)
        for _ in range(200):
            with contextlib.suppress(TimeoutError):
                return sock.recv(4096) + _rest(sock)
            try:
                sock.sendall(drop)
            except ConnectionError:
                return b""
        pytest.fail("it was never ended")


def _rest(sock: socket.socket) -> bytes:
    """Until the server ends the connection: a head and its body may come apart."""
    sock.settimeout(60)
    chunks = []
    # what it has not read of ours may be answered with a reset
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(4096):
            chunks.append(chunk)
    return b"".join(chunks)


def test_slow_heads(victim: Served) -> None:
    """Slowloris."""
    with bystander(victim):
        answer = drip(victim.settings.http_port, b"GET /v2 HTTP/1.1\r\n", b"X: y\r\n")
    assert answer[:12] in (b"HTTP/1.1 408", b""), answer


@pytest.mark.parametrize("fields", [(b"Content-Length: 1000",), (CHUNKED,)])
def test_slow_bodies(victim: Served, fields: tuple[bytes, ...]) -> None:
    """R.U.D.Y."""
    drop = b"x" if fields[0].startswith(b"Content") else b"1\r\nx\r\n"
    with bystander(victim):
        answer = drip(victim.settings.http_port, post(b"", *fields), drop)
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert b"the body came too slowly" in answer
    assert "Exception in callback" not in victim.log


def test_a_body_that_comes_steadily_may_take_its_time(victim: Served) -> None:
    """Longer than the patience, but faster than nobody's network."""
    body = GOOD + b" " * 64_000
    pieces = [body[at : at + 8000] for at in range(0, len(body), 8000)]
    head = post(b"", b"Content-Length: %d" % len(body))
    with socket.create_connection(("127.0.0.1", victim.settings.http_port), timeout=60) as sock:
        sock.sendall(head)
        for piece in pieces:
            sock.sendall(piece)
            sock.settimeout(PATIENCE_S / 4)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            if piece is pieces[-2]:
                break
        sock.settimeout(60)
        sock.sendall(pieces[-1])
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_slow_readers(victim: Served) -> None:
    """Who asks for much and takes nothing of it does not have it kept for ever."""
    served = victim
    values = b",".join([b"1"] * 400_000)
    body = b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1,400000],"data":[%b]}]}' % values
    asked = post(body, b"Content-Length: %d" % len(body))
    before = descriptors(served.gateway)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(60)
            sock.connect(("127.0.0.1", served.settings.http_port))
            sock.sendall(asked)
        with bystander(served):
            eventually(lambda: descriptors(served.gateway) <= before, "they are kept")


# ── many connections ────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_idle_connections(victim: Served, port: int) -> None:
    before = descriptors(victim.gateway)
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        answer = exchange(port, post(GOOD, LENGTH))
        assert answer.startswith(b"HTTP/1.1 200 ")
    eventually(lambda: descriptors(victim.gateway) <= before + 8, "they are kept")


def test_resets_in_the_middle(victim: Served, port: int) -> None:
    """RST in place of FIN, wherever the request is."""
    before = descriptors(victim.gateway)
    whole = post(GOOD, LENGTH)
    for end in range(1, len(whole), 7):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(whole[:end])
    eventually(lambda: descriptors(victim.gateway) <= before + 8, "they are kept")
