"""HTTP that no library would send: each gets its answer, or its end, at once, and the server goes on."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from served import Served, json_request

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def goes_on(server: Served) -> Iterator[None]:
    """Whatever came before, the next good request is answered."""
    yield
    assert server.infer("puppet", json_request(1.0)).status == 200


def exchange(server: Served, data: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes on a socket of their own; all that comes back until the server closes or is silent."""
    with socket.create_connection(("127.0.0.1", server.settings.http_port), timeout=15) as sock:
        sock.sendall(data)
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        received = b""
        while not _complete(received):
            chunk = sock.recv(65536)
            if not chunk:
                break
            received += chunk
        return received


def _complete(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if found and line.lower().startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False


def post(body: bytes, *headers: str, path: str = "/v2/models/puppet/infer") -> bytes:
    """The bytes of a POST with just these headers."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_too_large_is_refused_before_the_body_is_read(server: Served) -> None:
    answer = exchange(server, post(b"", f"Content-Length: {65 << 20}"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"the limit is 67108864" in answer


def test_too_large_in_chunks(server: Served) -> None:
    chunk = b"1000000\r\n" + bytes(1 << 24) + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.settings.http_port), timeout=30) as sock:
        sock.sendall(post(b"", "Transfer-Encoding: chunked"))
        try:
            for _ in range(5):
                sock.sendall(chunk)
        except OSError:
            # the server answered and closed; the answer may be lost with it
            return
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_truncated_body(server: Served) -> None:
    """The client promises more than it sends, and goes: there is nobody to answer, and nothing may hang."""
    body = json.dumps(json_request(1.0)).encode()
    data = post(body[:-5], f"Content-Length: {len(body)}")
    before = server.metric("nv_inference_request_success", "puppet")
    answer = exchange(server, data, half_close=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert server.metric("nv_inference_request_success", "puppet") == before


def test_over_long_body(server: Served) -> None:
    """What follows the promised bytes is another request, and a bad one."""
    body = json.dumps(json_request(1.0)).encode()
    data = post(body + b"garbage" * 10 + b"\r\n\r\n", f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", server.settings.http_port), timeout=15) as sock:
        sock.sendall(data)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    # two fronts, two minds: the good request may be answered before the garbage is
    assert b"HTTP/1.1 400 " in received
    assert received.count(b"HTTP/1.1 ") <= 2


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: x",),
        ("Content-Length: -1",),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
    ],
)
def test_content_lengths(server: Served, headers: tuple[str, ...]) -> None:
    answer = exchange(server, post(b"0\r\n\r\n", *headers), half_close=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_a_path_that_is_no_text(server: Served) -> None:
    """D7: it would hang for ever."""
    answer = server.get("/v2/models/%ff")
    assert answer.status in (400, 403, 404)


def test_not_http_at_all(server: Served) -> None:
    assert b" 400 " in exchange(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
