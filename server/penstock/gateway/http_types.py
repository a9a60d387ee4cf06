"""An HTTP request and response, free of ASGI."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from penstock.access.session import OPEN, AnySession
from penstock.types import CallTerms
from penstock.workers.request import PendingRequest, Respond

Headers = dict[bytes, bytes]
"""Lower-case names; the last of repeated ones. Bytes, for most of them are never looked at."""


def header(headers: Headers, name: bytes) -> str:
    """The header's value; empty when there is none."""
    return headers.get(name, b"").decode("latin-1")


class HttpRequest(msgspec.Struct, frozen=True):
    """One request with its whole body, as it was before any Content-Encoding."""

    method: str
    headers: Headers
    body: bytes
    session: AnySession = OPEN
    """Whose it is."""
    query: bytes = b""
    """What is after the path's `?`."""


class HttpResponse(msgspec.Struct, frozen=True):
    """One response."""

    body: bytes = b""
    status: int = HTTPStatus.OK
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def json_response(value: Any, status: int = HTTPStatus.OK) -> HttpResponse:
    """The value as JSON."""
    return HttpResponse(msgspec.json.encode(value), status)


def error_response(
    text: str, status: int, headers: tuple[tuple[str, str], ...] = ()
) -> HttpResponse:
    """The error form of the protocol."""
    return HttpResponse(msgspec.json.encode({"error": text}), status, headers=headers)


class InferenceWire(Protocol):
    """A form in which inference requests come over HTTP, and their answers go."""

    async def submit(
        self, name: str, version: str, request: HttpRequest, respond: Respond, terms: CallTerms
    ) -> PendingRequest:
        """A request's way in; `respond` is called when it is answered. Raises PenstockError."""
        ...

    def respond(self, request: HttpRequest, body: bytes, pending: PendingRequest) -> HttpResponse:
        """The response of what the request's own encoder has made."""
        ...


class InferCall(msgspec.Struct, frozen=True):
    """A request that is to be answered by a model."""

    wire: InferenceWire
    name: str
    version: str = ""
