"""What attackers send: bytes that no library would, by hand, while a polite client goes on."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpack import Encoder

from served import Served, json_request

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = (
    0,
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
)
END_STREAM, END_HEADERS = 1, 4
LIVE: Final = b"/inference.GRPCInferenceService/ServerLive"
PIECE_BYTES: Final = 16_000
"""Within the frame size that every server takes."""

AT_ONCE_S: Final = 0.05

Fields = Sequence[tuple[bytes, bytes]]


# ── the victim ──────────────────────────────────────────────────────────────────────────────────────────────────────


def resident_mib(served: Served) -> float:
    """Memory of the gateway."""
    status = Path(f"/proc/{served.gateway}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@contextlib.contextmanager
def bystander(served: Served, *, mib: float = 64) -> Iterator[None]:
    """A polite client sends requests, one after the other, throughout: to a model that no attack is for, because a
    batch may fail as a whole. All must be answered, and the gateway must be the same process afterwards, not much
    larger than before."""
    gateway, before = served.gateway, resident_mib(served)
    stop = threading.Event()
    statuses: list[int | str] = []

    def ask() -> None:
        while not stop.is_set() or not statuses:
            try:
                statuses.append(served.infer("classes", json_request(1.0, 2.0, 3.0, 4.0)).status)
            except OSError as error:
                statuses.append(repr(error))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join()
    assert set(statuses) == {200}, statuses
    assert served.gateway == gateway, served.log
    grown = resident_mib(served) - before
    assert grown < mib, f"the gateway has grown by {grown:.0f} MiB"


# ── HTTP/1.1 ────────────────────────────────────────────────────────────────────────────────────────────────────────


def exchange(port: int, *parts: bytes, patience_s: float = 60) -> bytes:
    """Send the parts on a connection of their own; the answer, and whatever follows at once. Fails where none comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience_s) as sock:
        received = b""
        with contextlib.suppress(ConnectionError):
            for part in parts:
                sock.sendall(part)
        with contextlib.suppress(ConnectionError):
            while not _complete(received) and (chunk := sock.recv(65536)):
                received += chunk
            # Envoy lets a second pass before it closes
            sock.settimeout(AT_ONCE_S)
            with contextlib.suppress(TimeoutError):
                received += sock.recv(65536)
        return received


def _complete(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if found and line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False


def post(body: bytes, *fields: bytes, path: bytes = b"/v2/models/puppet/infer") -> bytes:
    """The bytes of a POST with just these header lines, and the wish to be the last."""
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: x", b"Connection: close", *fields, b"", b""]
    return b"\r\n".join(lines) + body


def chunked(body: bytes) -> bytes:
    """The body as one chunk."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


GOOD: Final = json.dumps(json_request(1.0)).encode()
"""A body for the model `puppet`."""


# ── HTTP/2 ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame, whatever is in it."""
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream)
    return head + payload


def block(
    fields: Fields = (),
    *,
    path: bytes = LIVE,
    method: bytes = b"POST",
    encoder: Encoder | None = None,
) -> bytes:
    """The header block of a gRPC call, with more fields."""
    own = [
        *((b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"x")),
        *((b"content-type", b"application/grpc"), (b"te", b"trailers")),
    ]
    encoded: bytes = (encoder or Encoder()).encode([*own, *fields], huffman=False)
    return encoded


def in_pieces(data: bytes, stream: int = 1) -> bytes:
    """A block as HEADERS and CONTINUATIONs."""
    pieces = [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]
    frames = [frame(HEADERS, END_STREAM, stream, pieces[0])]
    frames += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:]]
    last = frames[-1]
    frames[-1] = last[:4] + bytes([last[4] | END_HEADERS]) + last[5:]
    return b"".join(frames)


@dataclass(frozen=True, slots=True)
class Ended:
    """What an HTTP/2 connection brought."""

    frames: list[tuple[int, int, bytes]]
    """(kind, stream, payload)."""
    closed: bool
    """The server has closed it; else it was silent for a while."""

    def has(self, kind: int) -> bool:
        """Whether there was such a frame."""
        return any(each[0] == kind for each in self.frames)

    @property
    def answered(self) -> bool:
        """Some call has got a message."""
        return any(kind == DATA and payload for kind, _, payload in self.frames)

    @property
    def refused(self) -> bool:
        """The connection or the stream was ended without an answer."""
        return self.closed or self.has(GOAWAY) or self.has(RST)


class H2:
    """One HTTP/2 connection, by hand. A context manager."""

    def __init__(self, port: int, *, window: int | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        payload = b"" if window is None else struct.pack(">HI", 4, window)
        self.broken = not self.send(PREFACE + frame(SETTINGS, 0, 0, payload))

    def __enter__(self) -> H2:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """False: the server has had enough."""
        try:
            self._socket.sendall(data)
        except (ConnectionError, TimeoutError):
            self.broken = True
            return False
        return True

    def flood(self, data: bytes, times: int) -> None:
        """Send it again and again, as long as the server bears it."""
        for _ in range(times):
            if not self.send(data):
                break

    def ending(self, silence_s: float = 1.0, *, at_refusal: bool = False) -> Ended:
        """Read until the server closes, or has nothing more to say; or has refused something."""
        self._socket.settimeout(silence_s)
        buffer, frames, closed = b"", list[tuple[int, int, bytes]](), True
        try:
            while chunk := self._socket.recv(1 << 20):
                buffer += chunk
                while len(buffer) >= 9 and len(buffer) >= (end := 9 + int.from_bytes(buffer[:3])):
                    stream = int.from_bytes(buffer[5:9]) & 0x7FFFFFFF
                    frames.append((buffer[3], stream, buffer[9:end]))
                    buffer = buffer[end:]
                if at_refusal and any(each[0] in (RST, GOAWAY) for each in frames):
                    return Ended(frames, False)
        except TimeoutError:
            closed = False
        except ConnectionError:
            pass
        return Ended(frames, closed)
