"""gRPC over ASGI: framing, compression, trailers. What grpc.aio does for the other front.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Coroutine
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from penstock.access.credentials import headers_of
from penstock.access.session import AnySession
from penstock.errors import BodyTooSlow, InvalidRequest, PayloadTooLarge, PenstockError, Unsupported
from penstock.gateway.asgi import Message, Receive, Scope, Send, SendNow, forget_frames
from penstock.gateway.aside import LARGE_BYTES
from penstock.gateway.compression import decompress_aside
from penstock.gateway.disconnects import Disconnects
from penstock.gateway.grpc_response import PREFIX
from penstock.gateway.grpc_service import MODEL_INFER, MODEL_STREAM_INFER, GrpcService
from penstock.gateway.infer_stream import InferStream
from penstock.gateway.no_task import NO_TASK, Again, NoTask
from penstock.gateway.outbox import JOIN_BYTES
from penstock.gateway.refusals import DETAILS, PUSHBACK, retry_after_ms, status_details
from penstock.gateway.rpc import Stream, admit
from penstock.gateway.slow_bodies import SlowBodies
from penstock.gateway.status import HIDDEN_TEXT, GrpcCode, status_of, text_of
from penstock.gateway.stream_terms import StreamTerms
from penstock.gateway.terms import TermsReader, from_now
from penstock.types import NO_TERMS, CallTerms
from penstock.workers.request import Answer, PendingRequest

log = logging.getLogger(__name__)

START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/grpc")],
    "trailers": True,
}
TRAILERS_OK: Final = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}
EMPTY_BODY: Final = {"type": "http.response.body", "body": b""}
FLUSH: Final = {"type": "http.response.body", "body": b"", "more_body": True}
"""The bridge holds headers back until there is a body."""
PREFIX_BYTES: Final = PREFIX.size

Status = tuple[GrpcCode, str, int | None]
"""Code, text, and milliseconds after which to try again."""


class GrpcOverAsgi:
    """Serves the RPCs of a GrpcService, whose answers are framed."""

    def __init__(
        self,
        service: GrpcService,
        terms: TermsReader,
        disconnects: Disconnects,
        slow_client_s: float,
        max_message_bytes: int,
        port: int,
    ) -> None:
        """`port`: where gRPC is served. Envoy has one listener for all ports, which must not mean one access."""
        self._service = service
        self._terms = terms
        self._disconnects = disconnects
        self._slow = SlowBodies(slow_client_s, _refuse_slow)
        self._max_message_bytes = max_message_bytes
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call.

        An inference is only read, decoded, bound and queued here: `GrpcAnswer` writes its response when its batch is
        done. No task has to be woken for it, which would cost more than all else that a small request takes.
        """
        await _answered(self._serve(scope, receive, send), scope["path"], send)

    def infer(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | NoTask:
        """As a call, of an inference: no task is made for it where its message is small and comes whole."""
        if not self._is_ours(scope):
            return self(scope, receive, send)
        try:
            terms, began_ns = self._begin(scope)
            first = receive()
        except BaseException as error:  # noqa: BLE001 - all of them end the response
            _refuse(send, scope["path"], error)
            return NO_TASK
        if not isinstance(first, asyncio.Future):
            # there is no body, which the bridge knows already
            whole = self._infer(scope, Again(first, receive), send, terms, began_ns)
            return _answered(whole, scope["path"], send)
        self._slow.begin(send)
        first.add_done_callback(partial(self._received, scope, receive, send, terms, began_ns))
        return NO_TASK

    def _received(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        terms: CallTerms,
        began_ns: int,
        first: asyncio.Future[Message],
    ) -> None:
        """The first piece of an inference's message is here."""
        try:
            self._slow.end(send)
            message = self._whole(first.result())
            if message is None:
                rest = self._infer(scope, Again(first, receive), send, terms, began_ns)
                self._run(_answered(rest, scope["path"], send))
                return
            if terms is not NO_TERMS:
                terms = from_now(terms, began_ns)
            request = self._service.infer(message, GrpcAnswer(send, self._disconnects), terms)
            self._disconnects.watch(request, receive)
        except BodyTooSlow:
            # it has its answer
            return
        except BaseException as error:  # noqa: BLE001 - all of them end the response
            _refuse(send, scope["path"], error)

    def _whole(self, event: Message) -> bytes | None:
        """The message, where nothing has to be waited for to have it, or to decode it; None also where it is none."""
        body: bytes = event.get("body", b"")
        if event.get("more_body") or not PREFIX_BYTES <= len(body) < LARGE_BYTES:
            return None
        flag, length = PREFIX.unpack_from(body)
        if flag or PREFIX_BYTES + length != len(body) or length > self._max_message_bytes:
            return None
        return body[PREFIX_BYTES:]

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if not self._is_ours(scope):
            raise Unsupported("this port does not serve gRPC")
        if path == MODEL_INFER:
            await self._infer(scope, receive, send, *self._begin(scope))
        elif path == MODEL_STREAM_INFER:
            await self._infer_stream(scope, receive, send)
        else:
            await self._other(path, scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        # none: the supervisor's own socket
        server = scope["server"]
        return server is None or server[1] == self._port

    def _begin(self, scope: Scope) -> tuple[CallTerms, int]:
        """The terms of an inference, and when it began, where they ask for that."""
        terms = self._terms.of_grpc(scope["headers"])
        return terms, 0 if terms is NO_TERMS else time.monotonic_ns()

    async def _infer(
        self, scope: Scope, receive: Receive, send: Send, terms: CallTerms, began_ns: int
    ) -> None:
        message = await self._read_message(scope, receive, send)
        if terms is not NO_TERMS:
            terms = from_now(terms, began_ns)
        answer = GrpcAnswer(send, self._disconnects)
        if len(message) < LARGE_BYTES:
            request = self._service.infer(message, answer, terms)
        else:
            request = await self._service.infer_large(message, answer, terms)
        self._disconnects.watch(request, receive)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _other(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever is not inference."""
        session = self._terms.session(headers_of(scope["headers"]))
        # before its message is read
        admit(self._service.rules.get(path), session)
        if unary := self._service.unary.get(path):
            message = await self._read_message(scope, receive, send)
            await _send_message(send, await unary(message, session))
        elif stream := self._service.streams.get(path):
            await self._stream(stream, scope, receive, send, session)
        else:
            raise Unsupported(f"unknown method {path}")

    async def _infer_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write the responses, while another task reads the requests. It ends with the call: the bridge can't stand
        that a `receive` is cancelled."""
        headers = headers_of(scope["headers"])
        terms = StreamTerms(self._terms.of_grpc(scope["headers"]), headers, self._terms)
        stream = self._service.infer_streams.open(terms)
        self._run(self._read(stream, scope, receive))
        trailers: Message = dict(TRAILERS_OK)
        await send(START)
        try:
            await send(FLUSH)
            while messages := await stream.outbox.next(JOIN_BYTES):
                body = messages[0] if len(messages) == 1 else b"".join(messages)
                await send({"type": "http.response.body", "body": body, "more_body": True})
            if stream.error is not None:
                trailers = _trailers(stream.error)
        except BaseException as error:  # noqa: BLE001 - all of them end the response
            trailers = _trailers(error, scope["path"])
        finally:
            stream.cancel()
            self._disconnects.forget(stream)
        await send(EMPTY_BODY)
        await send(trailers)

    async def _read(self, stream: InferStream, scope: Scope, receive: Receive) -> None:
        await stream.read(self._messages(scope, receive))
        if not stream.over:
            self._disconnects.watch(stream, receive)

    async def _stream(
        self, stream: Stream, scope: Scope, receive: Receive, send: Send, session: AnySession
    ) -> None:
        started = False
        try:
            async for response in stream(self._messages(scope, receive), session):
                if not started:
                    await send(START)
                    started = True
                await send({"type": "http.response.body", "body": response, "more_body": True})
            if not started:
                await send(START)
            await send(EMPTY_BODY)
            await send(TRAILERS_OK)
        except BaseException as error:
            if not started:
                raise
            await send(EMPTY_BODY)
            await send(_trailers(error, scope["path"]))

    async def _read_message(self, scope: Scope, receive: Receive, send: Send) -> bytes:
        """The one message of a unary call. Raises BodyTooSlow, InvalidRequest, PayloadTooLarge, Unsupported."""
        self._slow.begin(send)
        try:
            event = await receive()
            body = event.get("body", b"")
            if event.get("more_body"):
                body = await self._read_rest(body, receive, send)
        finally:
            self._slow.end(send)
        if len(body) < PREFIX_BYTES:
            raise InvalidRequest(f"expected one gRPC message, got {len(body)} bytes")
        flag, length = PREFIX.unpack_from(body)
        self._check_length(length)
        if PREFIX_BYTES + length != len(body):
            raise InvalidRequest(
                f"the gRPC message says {length} bytes, {len(body) - PREFIX_BYTES} came"
            )
        message: bytes = body[PREFIX_BYTES:]
        return await self._inflated(scope, message) if flag else message

    async def _read_rest(self, first: bytes, receive: Receive, send: Send) -> bytes:
        """All of the body. What is too long is refused by its prefix, before the rest is read."""
        chunks = [first]
        size = len(first)
        limit = PREFIX_BYTES + self._max_message_bytes
        checked = False
        while True:
            if not checked and size >= PREFIX_BYTES:
                limit = PREFIX_BYTES + self._declared_length(b"".join(chunks))
                checked = True
            if size > limit:
                raise InvalidRequest("the body is longer than its gRPC message says")
            event = await receive()
            if event["type"] == "http.disconnect":
                raise InvalidRequest("the client went away in the middle of its request")
            chunk = event.get("body", b"")
            chunks.append(chunk)
            self._slow.received[send] = size = size + len(chunk)
            if not event.get("more_body"):
                return b"".join(chunks)

    async def _messages(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """The messages of a streaming call, as they come."""
        buffer = bytearray()
        more = True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise asyncio.CancelledError
            buffer += event.get("body", b"")
            more = event.get("more_body", False)
            while len(buffer) >= PREFIX_BYTES:
                end = PREFIX_BYTES + self._declared_length(buffer)
                if len(buffer) < end:
                    break
                message = bytes(buffer[PREFIX_BYTES:end])
                flag = buffer[0]
                del buffer[:end]
                yield await self._inflated(scope, message) if flag else message
        if buffer:
            raise InvalidRequest(f"the stream ends within a message, {len(buffer)} bytes are left")

    def _declared_length(self, prefix: bytes | bytearray) -> int:
        length: int = PREFIX.unpack_from(prefix)[1]
        self._check_length(length)
        return length

    def _check_length(self, length: int) -> None:
        if length > self._max_message_bytes:
            raise PayloadTooLarge(
                f"the message has {length} bytes, the limit is {self._max_message_bytes}"
            )

    async def _inflated(self, scope: Scope, message: bytes) -> bytes:
        encoding = _header(scope, b"grpc-encoding")
        if encoding in ("", "identity"):
            raise InvalidRequest(
                "the message is flagged as compressed, but grpc-encoding names no encoding"
            )
        if encoding not in ("gzip", "deflate"):
            raise Unsupported(
                f"grpc-encoding '{encoding}' is not supported, expected gzip or deflate"
            )
        return await decompress_aside(message, encoding, self._max_message_bytes)


class GrpcAnswer:
    """Writes one inference's response. The bridge's `send` acts when it is called; awaiting it would only tell of
    back-pressure, which one message does not have."""

    __slots__ = ("_disconnects", "_send")

    def __init__(self, send: Send, disconnects: Disconnects) -> None:
        self._send = send
        self._disconnects = disconnects

    def __call__(self, request: PendingRequest, answer: Answer) -> None:
        self._disconnects.forget(request)
        send = self._send
        try:
            if isinstance(answer, bytes):
                send(START)
                send({"type": "http.response.body", "body": answer})
                send(TRAILERS_OK)
            else:
                send(_error_start(*_status(answer)))
                send(EMPTY_BODY)
        except OSError as error:
            forget_frames(error)
        except Exception:
            log.exception("a response could not be sent")


async def _answered(serving: Awaitable[None], path: str, send: Send) -> None:
    """Every way out of here completes the response: a bridge that gets none would tell the client OK (D1), or nothing
    at all (D2)."""
    try:
        await serving
    except BodyTooSlow:
        # it has its answer
        return
    except BaseException as error:  # noqa: BLE001 - all of them end the response
        await _send_error(send, *_outcome(path, error))


def _refuse(send: SendNow, path: str, error: BaseException) -> None:
    """Complete the response of a call that has no task."""
    try:
        send(_error_start(*_outcome(path, error)))
        send(EMPTY_BODY)
    except OSError as gone:
        forget_frames(gone)


def _status(error: PenstockError) -> Status:
    return status_of(error).grpc, text_of(error), retry_after_ms(error)


def _outcome(path: str, error: BaseException) -> Status:
    """What the client is told of an exception. Those that nobody foresaw are logged."""
    if isinstance(error, PenstockError):
        return _status(error)
    if isinstance(error, asyncio.CancelledError):
        return GrpcCode.CANCELLED, "cancelled", None
    # that the client is gone, the bridge tells by an OSError without a number
    if not isinstance(error, OSError) or error.errno is not None:
        log.error("%s failed", path, exc_info=error)
    if isinstance(error, OSError):
        forget_frames(error)
    return GrpcCode.INTERNAL, HIDDEN_TEXT, None


def _trailers(error: BaseException, path: str = "") -> Message:
    return {"type": "http.response.trailers", "headers": _status_headers(*_outcome(path, error))}


async def _refuse_slow(send: Send, error: BodyTooSlow) -> None:
    await _send_error(send, *_status(error))


async def _send_message(send: Send, response: bytes) -> None:
    await send(START)
    await send({"type": "http.response.body", "body": response})
    await send(TRAILERS_OK)


async def _send_error(send: Send, code: GrpcCode, text: str, after_ms: int | None) -> None:
    """A response of nothing but headers."""
    try:
        await send(_error_start(code, text, after_ms))
        await send(EMPTY_BODY)
    except OSError as error:
        forget_frames(error)
    except RuntimeError:
        log.debug("the response had begun already")


def _error_start(code: GrpcCode, text: str, after_ms: int | None) -> Message:
    headers = [(b"content-type", b"application/grpc"), *_status_headers(code, text, after_ms)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _status_headers(code: GrpcCode, text: str, after_ms: int | None) -> list[tuple[bytes, bytes]]:
    # percent-encoded by gRPC's own rules: printable ASCII but % stays as it is
    message = quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    headers = [(b"grpc-status", str(int(code)).encode()), (b"grpc-message", message.encode())]
    if after_ms is not None:
        # binary values are base64 without padding
        details = b64encode(status_details(code, text, after_ms)).rstrip(b"=")
        headers += [(DETAILS.encode(), details), (PUSHBACK.encode(), str(after_ms).encode())]
    return headers


def _header(scope: Scope, name: bytes) -> str:
    value: Any = next((v for n, v in scope["headers"] if n == name), b"")
    return str(value, "latin-1")
