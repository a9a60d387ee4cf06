"""HTTP over ASGI: bodies within their limit, errors in the protocol's form, each port its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

from penstock.access.credentials import headers_of
from penstock.access.session import AnySession
from penstock.errors import BodyTooSlow, InvalidRequest, PayloadTooLarge, PenstockError
from penstock.gateway.asgi import Message, Receive, Scope, Send, SendNow, forget_frames
from penstock.gateway.compression import decompress_aside
from penstock.gateway.disconnects import Disconnects
from penstock.gateway.http_generate import (
    EventStream,
    GeneratedResponses,
    Generation,
    OneResponse,
)
from penstock.gateway.http_routes import model_path
from penstock.gateway.http_types import (
    Headers,
    HttpRequest,
    HttpResponse,
    InferenceWire,
    error_response,
    header,
)
from penstock.gateway.refusals import http_refusal
from penstock.gateway.route_table import Reply
from penstock.gateway.slow_bodies import SlowBodies
from penstock.gateway.status import HIDDEN_TEXT
from penstock.gateway.terms import TermsReader, from_now
from penstock.types import NO_TERMS, CallTerms
from penstock.verbs import Verb
from penstock.workers.request import Answer, PendingRequest

log = logging.getLogger(__name__)


class Door(Protocol):
    """Answers the requests of one port, by path."""

    def admit(self, method: str, path: str, session: AnySession) -> None:
        """What can be said of a request before its body is read. Raises Unauthenticated, Forbidden."""
        ...

    async def __call__(self, path: str, request: HttpRequest) -> Reply:
        """Answer a request. Raises PenstockError."""
        ...


MAX_TARGETS = 1024
ACTIONS = frozenset(("infer", "generate", "generate_stream"))
"""What is asked of a model by inference requests."""
INFERENCE = tuple(f"/{action}" for action in ACTIONS)
"""How their paths end."""
CLIENT_CLOSED_REQUEST = 499
"""Nginx's code for a client that went away; nobody reads it but logs."""


class HttpOverAsgi:
    """Answers plain HTTP."""

    def __init__(
        self,
        routes: Door,
        inference: InferenceWire,
        generation: Generation,
        terms: TermsReader,
        disconnects: Disconnects,
        slow_client_s: float,
        max_body_bytes: int,
        doors: Mapping[int, Door],
    ) -> None:
        """`doors`: what answers on the other ports."""
        self._routes = routes
        self._inference = inference
        self._generation = generation
        self._terms = terms
        self._disconnects = disconnects
        self._slow = SlowBodies(slow_client_s, _refuse_slow)
        self._max_body_bytes = max_body_bytes
        self._doors = doors
        self._targets: dict[str, tuple[str, str, str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever happens, there is a response. `send` acts when it is called, and what it returns
        need only be awaited by who wants to know when the client's transport has taken it."""
        try:
            response = await self._answer(scope, receive, send)
            if response is None:
                return
        except BodyTooSlow:
            # it has its answer
            return
        except PenstockError as error:
            response = http_refusal(error)
        except asyncio.CancelledError:
            response = error_response("cancelled", CLIENT_CLOSED_REQUEST)
        except BaseException:
            log.exception("%s %s failed", scope["method"], scope["path"])
            response = error_response(HIDDEN_TEXT, HTTPStatus.INTERNAL_SERVER_ERROR)
        _send(send, response)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> HttpResponse | None:
        """The response; None for an inference, which `HttpAnswer` responds to when its batch is done, and for a stream
        of events, which are sent."""
        path = scope["path"]
        server = scope["server"]
        headers: Headers = headers_of(scope["headers"])
        if server is not None and (door := self._doors.get(server[1])) is not None:
            return await self._other(door, scope, headers, receive, send)
        method = scope["method"]
        target = self._target(path) if method == "POST" and path.endswith(INFERENCE) else None
        if target is None or target[2] not in ACTIONS:
            return await self._other(self._routes, scope, headers, receive, send)
        if target[2] != "infer":
            return await self._generate(target, headers, receive, send)
        terms = self._terms.of_http(headers)
        _admit(terms, target[0])
        began_ns = 0 if terms is NO_TERMS else time.monotonic_ns()
        request = HttpRequest(method, headers, await self._read_body(headers, receive, send))
        if terms is not NO_TERMS:
            terms = from_now(terms, began_ns)
        answer = HttpAnswer(send, self._disconnects, self._inference, request)
        pending = await self._inference.submit(target[0], target[1], request, answer, terms)
        self._disconnects.watch(pending, receive)
        return None

    async def _other(
        self, door: Door, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> HttpResponse | None:
        """As `_answer`, of whatever is not the protocol's own inference."""
        began_ns = time.monotonic_ns()
        session = self._terms.session(headers)
        method, path = scope["method"], scope["path"]
        door.admit(method, path, session)
        body = await self._read_body(headers, receive, send)
        request = HttpRequest(method, headers, body, session, scope.get("query_string", b""))
        reply = await door(path, request)
        if isinstance(reply, HttpResponse):
            return reply
        terms = from_now(self._terms.of_http(headers), began_ns)
        _admit(terms, reply.name)
        answer = HttpAnswer(send, self._disconnects, reply.wire, request)
        pending = await reply.wire.submit(reply.name, reply.version, request, answer, terms)
        self._disconnects.watch(pending, receive)
        return None

    async def _generate(
        self, target: tuple[str, str, str], headers: Headers, receive: Receive, send: Send
    ) -> HttpResponse | None:
        """The response of `generate`; None for `generate_stream`, whose events are sent."""
        name, version, action = target
        terms = self._terms.of_http(headers)
        _admit(terms, name)
        began_ns = time.monotonic_ns()
        self._generation.check(name, version, headers)
        body = await self._read_body(headers, receive, send)
        receiver = OneResponse() if action == "generate" else EventStream()
        responses = GeneratedResponses(receiver)
        terms = from_now(terms, began_ns)
        pending = await self._generation.submit(name, version, body, responses, terms)
        self._disconnects.watch(pending, receive)
        try:
            if isinstance(receiver, OneResponse):
                return HttpResponse(await receiver.answer)
            await receiver.write(send)
            return None
        finally:
            self._disconnects.forget(pending)
            pending.cancel()

    def _target(self, path: str) -> tuple[str, str, str] | None:
        """`model_path`, remembered: clients repeat their few paths."""
        target = self._targets.get(path)
        if target is None and (target := model_path(path)) is not None:
            if len(self._targets) >= MAX_TARGETS:
                self._targets.clear()
            self._targets[path] = target
        return target

    async def _read_body(self, headers: Headers, receive: Receive, send: Send) -> bytes:
        """The whole body, decompressed. Raises PayloadTooLarge before reading it where its length says so."""
        declared = _content_length(headers)
        if declared > self._max_body_bytes:
            raise PayloadTooLarge(self._too_large(declared))
        self._slow.begin(send)
        try:
            event = await receive()
            body: bytes = event.get("body", b"")
            if event.get("more_body"):
                body = await self._read_rest(body, receive, send)
        finally:
            self._slow.end(send)
        if len(body) > self._max_body_bytes:
            raise PayloadTooLarge(self._too_large(len(body)))
        if declared >= 0 and len(body) != declared:
            # a body that was cut off looks complete to the app (pyvoy): its length tells
            raise InvalidRequest(f"content-length says {declared} bytes, {len(body)} came")
        encoding = header(headers, b"content-encoding")
        if not encoding:
            return body
        return await decompress_aside(body, encoding, self._max_body_bytes)

    async def _read_rest(self, first: bytes, receive: Receive, send: Send) -> bytes:
        """The body, or as much of it as shows that it is too large."""
        chunks = [first]
        size = len(first)
        more = True
        while more and size <= self._max_body_bytes:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise InvalidRequest("the client went away in the middle of its request")
            chunk = event.get("body", b"")
            chunks.append(chunk)
            self._slow.received[send] = size = size + len(chunk)
            more = event.get("more_body", False)
        return b"".join(chunks)

    def _too_large(self, size: int) -> str:
        return f"the body has {size} bytes or more, the limit is {self._max_body_bytes}"


def _admit(terms: CallTerms, model: str) -> None:
    """Before the body is read, and before anything is said of the model. Raises Forbidden."""
    if terms.session is not None:
        terms.session.check(Verb.INFER, model)


async def _refuse_slow(send: Send, error: BodyTooSlow) -> None:
    start, body = _messages(http_refusal(error))
    try:
        await send(start)
        await send(body)
    except OSError as gone:
        forget_frames(gone)


def _content_length(headers: Headers) -> int:
    """-1 when the client sends none."""
    text = header(headers, b"content-length") or "-1"
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(f"content-length '{text[:40]}' is not a number") from None


class HttpAnswer:
    """Responds to one inference, from its batch's callback."""

    __slots__ = ("_disconnects", "_inference", "_request", "_send")

    def __init__(
        self,
        send: SendNow,
        disconnects: Disconnects,
        inference: InferenceWire,
        request: HttpRequest,
    ) -> None:
        self._send = send
        self._disconnects = disconnects
        self._inference = inference
        self._request = request

    def __call__(self, pending: PendingRequest, answer: Answer) -> None:
        self._disconnects.forget(pending)
        try:
            if isinstance(answer, bytes):
                response = self._inference.respond(self._request, answer, pending)
            else:
                response = http_refusal(answer)
        except Exception:
            log.exception("a response could not be made")
            response = error_response(HIDDEN_TEXT, HTTPStatus.INTERNAL_SERVER_ERROR)
        _send(self._send, response)


def _messages(response: HttpResponse) -> tuple[Message, Message]:
    headers = [
        (b"content-type", response.content_type.encode()),
        (b"content-length", str(len(response.body)).encode()),
        *((name.encode(), value.encode()) for name, value in response.headers),
    ]
    start = {"type": "http.response.start", "status": int(response.status), "headers": headers}
    return start, {"type": "http.response.body", "body": response.body}


def _send(send: SendNow, response: HttpResponse) -> None:
    start, body = _messages(response)
    try:
        send(start)
        send(body)
    except OSError as error:
        forget_frames(error)
