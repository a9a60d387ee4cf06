"""uvicorn's HTTP/1.1 with Envoy's bounds: on the size and time of headers, on connections, on slow readers."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from penstock.gateway.limits import MAX_HEADERS, MAX_HEADERS_KIB, max_connections

MAX_HEAD_BYTES: Final = MAX_HEADERS_KIB << 10
HEAD_S: Final = 10.0
"""Seconds that a request's head may take."""


class _Refused(Exception):
    """Raised in the parser's callbacks, to end it."""


class GuardedHttp(HttpToolsProtocol):
    """One connection. `patience_s` is its subclass's; 0: any."""

    patience_s = 0.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._in_head = self._got_on = False
        self._head_bytes = self._unparsed_bytes = self._fields = 0
        self._refusal = HTTPStatus.BAD_REQUEST
        self._max_connections = max_connections()

    # ── its beginning and end ───────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """One more; over the bound it is closed at once, as Envoy does."""
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """No timer may outlive it."""
        super().connection_lost(exc)
        self._stop_head()
        self._stop_writing()

    # ── heads ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """The parser keeps headers and trailers that are not complete, however long they are: they are counted here."""
        self._got_on = False
        super().data_received(data)
        if self._got_on:
            self._unparsed_bytes = 0
        elif not self.transport.is_closing():
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > MAX_HEAD_BYTES:
                self._answer_and_close(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._fields = 0
        if self._head is None:
            self._expect_head()

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole field."""
        self._fields += 1
        self._count(len(name) + len(value))
        # a trailer nobody reads, and it must not pass for a header
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request can be answered."""
        self._in_head, self._got_on = False, True
        self._stop_head()
        super().on_headers_complete()

    def _count(self, nbytes: int) -> None:
        self._head_bytes += nbytes
        if self._fields > MAX_HEADERS or self._head_bytes > MAX_HEAD_BYTES:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise _Refused

    def send_400_response(self, msg: str) -> None:
        """The parser has refused the bytes, or a callback has."""
        self._answer_and_close(self._refusal)

    def _answer_and_close(self, status: HTTPStatus) -> None:
        """In the protocol's form, unless another answer has begun."""
        self._stop_head()
        cycle = self.cycle
        begun = cycle is not None and cycle.response_started and not cycle.response_complete
        if not begun and not self.pipeline:
            if cycle is not None:
                # what the application says of the broken request would come too late
                cycle.disconnected = True
                cycle.message_event.set()
            body = json.dumps({"error": status.phrase.lower()}).encode()
            lines = [
                STATUS_LINE[status].rstrip(),
                b"content-type: application/json",
                b"content-length: %d" % len(body),
                b"connection: close",
            ]
            self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._expect_reading()

    def _expect_head(self) -> None:
        self._stop_head()
        if self.patience_s:
            delay_s = min(HEAD_S, self.patience_s)
            self._head = self.loop.call_later(delay_s, self._head_is_late)

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _head_is_late(self) -> None:
        self._head = None
        if self.flow.read_paused:
            # we don't read, so it is not the client's fault
            self._expect_head()
        elif self._in_head:
            self._answer_and_close(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    # ── what is not read, and what is not taken ─────────────────────────────────────────────────────────────────────

    def on_response_complete(self) -> None:
        """The rest of a body that nobody wanted may come, so that the client sees its answer, but not for ever."""
        super().on_response_complete()
        if self.cycle.more_body and not self.transport.is_closing():
            self._expect_head()

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        self._got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole body is here."""
        self._got_on = True
        super().on_message_complete()
        if self.cycle.response_complete:
            self._stop_head()

    def pause_writing(self) -> None:
        """The client takes its answer slowly, or not at all."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """It has taken it."""
        super().resume_writing()
        self._stop_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Closing waits until the client has taken what is written: not for ever."""
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():
            self._expect_reading()

    def _expect_reading(self) -> None:
        self._stop_writing()
        if self.patience_s:
            left = self.transport.get_write_buffer_size()
            self._writing = self.loop.call_later(self.patience_s, self._look_at_reading, left)

    def _look_at_reading(self, left: int) -> None:
        if self.transport.get_write_buffer_size() < left:
            self._expect_reading()
        else:
            self._stop_writing()
            self.transport.abort()

    def _stop_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None


def guarded(
    patience_s: float, protocol: type[HttpToolsProtocol] = HttpToolsProtocol
) -> type[GuardedHttp]:
    """The class of connections that are so patient, and are otherwise as `protocol`."""
    return type("PatientHttp", (GuardedHttp, protocol), {"patience_s": patience_s})
