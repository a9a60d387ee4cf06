"""The garbage itself, made anew each time."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any, Final

Make = Callable[[random.Random], bytes]

PATH: Final = "/v2/models/graph/infer"


def _post(body: bytes, path: str = PATH, method: str = "POST", **headers: object) -> bytes:
    """A whole HTTP request, after which the server closes."""
    all_headers = {
        "host": "x",
        "connection": "close",
        "content-length": len(body),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in all_headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def _request(**fields: Any) -> bytes:
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3], **fields}
    return json.dumps({"inputs": [tensor]}).encode()


def _cut_json(rng: random.Random) -> bytes:
    body = _request()
    return _post(body[: rng.randint(0, len(body) - 1)])


def _wrong_head_length(rng: random.Random) -> bytes:
    body = _request() + rng.randbytes(12)
    length = rng.choice([len(body) + rng.randint(1, 10**6), -1, 0.5, "many", 2])
    return _post(body, inference_header_content_length=length)


def _long_chunk(rng: random.Random) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    return head.encode() + b"ffffffffff\r\n" + rng.randbytes(50)


def _unfinished(rng: random.Random) -> bytes:
    body = _request()
    whole = _post(body, content_length=len(body) + rng.randint(1, 10**6))
    return whole[: rng.randint(1, len(whole))]


def _h2_frames(rng: random.Random) -> bytes:
    frames = b"".join(_h2_frame(rng) for _ in range(rng.randint(1, 8)))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + frames


def _h2_frame(rng: random.Random) -> bytes:
    """A frame of a length, kind and content by chance."""
    payload = rng.randbytes(rng.randint(0, 200))
    length = struct.pack(">I", rng.choice([len(payload), rng.getrandbits(24)]))[1:]
    head = bytes([rng.randint(0, 12), rng.getrandbits(8)])
    return length + head + struct.pack(">I", rng.choice([0, 1, 3, rng.getrandbits(31)])) + payload


HTTP_GARBAGE: Final[tuple[tuple[str, Make], ...]] = (
    ("cut JSON", _cut_json),
    ("random body", lambda rng: _post(rng.randbytes(rng.randint(1, 2000)))),
    ("random body with a head length", _wrong_head_length),
    ("inputs of a wrong type", lambda _: _post(b'{"inputs": 5}')),
    ("no inputs", lambda _: _post(b'{"inputs": []}')),
    ("a shape of more than the data", lambda _: _post(_request(shape=[1, 4]))),
    ("a negative shape", lambda _: _post(_request(shape=[-1, -3]))),
    ("a huge shape", lambda _: _post(_request(shape=[1 << 40, 1 << 40]))),
    ("more rows than a batch may hold", lambda _: _post(_request(shape=[99, 1], data=[0] * 99))),
    ("words for numbers", lambda _: _post(_request(data=["a", "b", "c"]))),
    ("a datatype of nobody", lambda _: _post(_request(datatype="FP33"))),
    ("nested too deep", lambda _: _post(b'{"inputs":' * 5000)),
    ("an unknown model", lambda _: _post(_request(), "/v2/models/nobody/infer")),
    ("an unknown path", lambda rng: _post(b"", f"/{rng.getrandbits(64):x}")),
    ("a wrong method", lambda _: _post(b"", method="DELETE")),
    ("a body that is not compressed", lambda _: _post(_request(), content_encoding="gzip")),
)
"""Whole requests: each is owed a clear refusal."""

RAW_GARBAGE: Final[tuple[tuple[str, Make], ...]] = (
    ("random bytes", lambda rng: rng.randbytes(rng.randint(1, 5000))),
    ("zeros", lambda rng: bytes(rng.randint(1, 5000))),
    (
        "a TLS hello",
        lambda rng: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(508),
    ),
    ("random HTTP/2 frames", _h2_frames),
    ("an unfinished request", _unfinished),
    ("a chunk that never comes", _long_chunk),
    ("a content-length of words", lambda _: _post(b"", content_length="some")),
    ("two content-lengths", lambda _: _post(b"abc", Content_Length=1)),
    ("an endless header", lambda rng: b"GET / HTTP/1.1\r\nx: " + b"y" * rng.randint(1, 200_000)),
    ("half a request line", lambda _: b"POST /v2/models/gra"),
)
"""Bytes that are owed nothing but an end."""


def grpc_bodies(rng: random.Random) -> list[tuple[str, bytes, bool]]:
    """(name, body of a ModelInfer call, whether the stream is ended)."""
    message = rng.randbytes(rng.randint(1, 200))
    size = len(message)
    return [
        ("longer than it says", _prefixed(message, length=size - 1), True),
        ("shorter than it says", _prefixed(message, length=size + rng.randint(1, 10**6)), True),
        ("nothing", b"", True),
        ("half a prefix", b"\0\0", True),
        ("flagged as compressed", _prefixed(message, flag=1), True),
        ("two messages", _prefixed(message) * 2, True),
        ("never ended", _prefixed(message), False),
        ("dropped in its middle", _prefixed(message)[: size // 2], False),
    ]


def _prefixed(message: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """The message with gRPC's prefix, which may lie about its length."""
    return struct.pack(">BI", flag, len(message) if length is None else length) + message
