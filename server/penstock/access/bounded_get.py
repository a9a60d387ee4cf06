"""One HTTP GET that ends: bounded in time and in bytes, of one address, with no redirect, no proxy and no cookie."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

OK: Final = 200


class FetchFailed(Exception):
    """Why an address gave nothing: for logs."""


class BoundedGet:
    """Fetches, one after the other, until it is closed. Made for a thread of its own; `close` may come from another."""

    def __init__(self, timeout_s: float, max_bytes: int, ca_file: Path | None) -> None:
        self._timeout_s, self._max_bytes, self._ca_file = timeout_s, max_bytes, ca_file
        self._socket: socket.socket | None = None
        self._closed = False

    def check(self) -> None:
        """Raises OSError if `ca_file` holds no certificates."""
        if self._ca_file is not None:
            ssl.create_default_context(cafile=self._ca_file)

    def fetch(self, url: str) -> bytes:
        """The body of a 200. Raises FetchFailed for all else."""
        deadline = time.monotonic() + self._timeout_s
        try:
            return self._fetch(url, deadline)
        except TimeoutError:
            raise FetchFailed(f"no answer within {self._timeout_s:g} s") from None
        except (OSError, HTTPException, ValueError) as error:
            raise FetchFailed(f"{type(error).__name__}: {error}") from None

    def close(self) -> None:
        """End what is under way."""
        self._closed = True
        if (connected := self._socket) is not None:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def _fetch(self, url: str, deadline: float) -> bytes:
        with contextlib.closing(self._connection(url)) as connection:
            connection.connect()
            connected = connection.sock
            self._socket = connected
            try:
                if self._closed:
                    raise FetchFailed("closed")
                parts = urlsplit(url)
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("GET", target, headers=_HEADERS)
                return self._read(connected, deadline)
            finally:
                self._socket = None

    def _connection(self, url: str) -> HTTPConnection:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme != "https":
            return HTTPConnection(host, parts.port, timeout=self._timeout_s)
        # made anew each time: certificates that are renewed count without a restart
        context = ssl.create_default_context(cafile=self._ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return HTTPSConnection(host, parts.port, timeout=self._timeout_s, context=context)

    def _read(self, connected: socket.socket, deadline: float) -> bytes:
        # the usual time-out is for each read, and a server that sends byte by byte would never meet it
        with HTTPResponse(_Deadline(connected, deadline), method="GET") as response:  # type: ignore[arg-type]
            response.begin()
            if response.status != OK:
                raise FetchFailed(f"status {response.status}, expected {OK}")
            if response.getheader("Content-Encoding", "identity") != "identity":
                raise FetchFailed("a compressed answer that was not asked for")
            body = response.read(self._max_bytes + 1)
        if len(body) > self._max_bytes:
            raise FetchFailed(f"over {self._max_bytes} bytes")
        return body


_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "penstock",
}


class _Deadline:
    """What `HTTPResponse` needs of a socket; all reads together end in time."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._raw = _DeadlineReader(connected, deadline)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._raw)


class _DeadlineReader(io.RawIOBase):
    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = connected, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        remaining_s = self._deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        self._socket.settimeout(remaining_s)
        return self._socket.recv_into(buffer)
