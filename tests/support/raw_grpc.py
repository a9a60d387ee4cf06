"""gRPC by hand over HTTP/2, to send what no gRPC library would."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events

from grpc_calls import MODEL_INFER

FRAME_BYTES = 16_384


def prefixed(message: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """The message with gRPC's prefix, which may lie about its length."""
    return struct.pack(">BI", flag, len(message) if length is None else length) + message


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended."""

    status: int | None
    """grpc-status; None when the stream ended without."""
    message: str
    data: bytes
    reset: bool


class RawGrpc:
    """One HTTP/2 connection. A context manager."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self) -> RawGrpc:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def start(
        self, path: str = MODEL_INFER, headers: Sequence[tuple[str, str]] = (), *, te: bool = True
    ) -> int:
        """Send a call's headers. Returns the stream's number."""
        stream: int = self._h2.get_next_available_stream_id()
        trailers = [("te", "trailers")] if te else []
        own = [
            *((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")),
            *(("content-type", "application/grpc"), *trailers, *headers),
        ]
        self._h2.send_headers(stream, own)
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = True) -> None:
        """Send bytes of a call's body that fit the first flow-control window."""
        chunks = [data[at : at + FRAME_BYTES] for at in range(0, len(data), FRAME_BYTES)] or [b""]
        for chunk in chunks[:-1]:
            self._h2.send_data(stream, chunk)
        self._h2.send_data(stream, chunks[-1], end_stream=end)
        self._flush()

    def reset(self, stream: int) -> None:
        """RST_STREAM with CANCEL."""
        self._h2.reset_stream(stream, 8)
        self._flush()

    def outcome(self, stream: int) -> Outcome:
        """Read until the call ends."""
        headers: dict[str, str] = {}
        data = b""
        while True:
            received = self._socket.recv(65536)
            if not received:
                return _outcome(headers, data, reset=True)
            for event in self._h2.receive_data(received):
                if isinstance(event, h2.events.DataReceived):
                    self._h2.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    headers.update((str(n), str(v)) for n, v in event.headers or ())
                elif isinstance(event, h2.events.DataReceived):
                    data += event.data or b""
                elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    self._flush()
                    return _outcome(headers, data, isinstance(event, h2.events.StreamReset))
            self._flush()

    def call(
        self,
        body: bytes,
        path: str = MODEL_INFER,
        headers: Sequence[tuple[str, str]] = (),
        *,
        te: bool = True,
    ) -> Outcome:
        """A whole call with this body, whatever it is."""
        stream = self.start(path, headers, te=te)
        self.send(stream, body)
        return self.outcome(stream)

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._socket.sendall(data)


def _outcome(headers: dict[str, str], data: bytes, reset: bool) -> Outcome:
    status = headers.get("grpc-status")
    text = unquote(headers.get("grpc-message", ""))
    return Outcome(None if status is None else int(status), text, data, reset)
