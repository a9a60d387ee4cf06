"""`python -m penstock.gateway.portable`: the portable front. grpc.aio and uvicorn on one uvloop, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import grpc
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from penstock.access.credentials import CERTIFICATE
from penstock.access.session import AnySession
from penstock.errors import BodyTooSlow, InvalidRequest, PenstockError, Unsupported
from penstock.gateway.auditing import CALL
from penstock.gateway.forwarded_certificate import forwarded
from penstock.gateway.gateway import Gateway
from penstock.gateway.grpc_service import MODEL_INFER, MODEL_STREAM_INFER, GrpcService
from penstock.gateway.guarded_http import guarded
from penstock.gateway.limits import HANDSHAKE_S, MAX_STREAMS
from penstock.gateway.refusals import DETAILS, PUSHBACK, retry_after_ms, status_details
from penstock.gateway.rpc import Stream, Unary, admit
from penstock.gateway.status import GrpcCode, status_of, text_of
from penstock.gateway.stream_terms import StreamTerms
from penstock.gateway.terms import TermsReader, metadata_of
from penstock.gateway.tls_context import LatestContext, LatestGrpcCertificates
from penstock.gateway.tls_files import TlsFiles

log = logging.getLogger(__name__)

MESSAGE_PATIENCE = 5
"""How many times the patience with slow clients a gRPC message gets: how much of it has come gRPC does not say."""

Context = Any
"""grpc.aio.ServicerContext, whose stubs lack its methods' types."""


class RpcTable(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Hands grpc.aio the RPCs of a GrpcService by path; messages stay bytes."""

    def __init__(self, service: GrpcService, terms: TermsReader, message_s: float | None) -> None:
        """`message_s`: how long a unary call's message may take; None: any time."""
        self._service = service
        self._terms = terms
        only = Only(message_s)
        unary = {
            path: _unary(path, call, service, terms, only) for path, call in service.unary.items()
        }
        unary[MODEL_INFER] = _infer(service, terms, only)
        self._handlers = {
            # as streams: for a call without a whole message grpc.aio's unary handlers would never answer
            path: grpc.stream_unary_rpc_method_handler(handle)
            for path, handle in unary.items()
        } | {
            path: grpc.stream_stream_rpc_method_handler(_stream(path, call, service, terms))
            for path, call in service.streams.items()
        }
        self._handlers[MODEL_STREAM_INFER] = grpc.stream_stream_rpc_method_handler(
            _infer_stream(service, terms)
        )

    def service(self, handler_call_details: Any) -> Any:
        """The handler of the called path."""
        path = handler_call_details.method
        return self._handlers.get(path) or self._unknown(path)

    def _unknown(self, path: str) -> Any:
        """Of a path that there is not, which only those are told who may know."""

        async def call(_: AsyncIterator[bytes], __: AnySession) -> AsyncIterator[bytes]:
            raise Unsupported(f"unknown method {path[:200]}")
            yield b""

        handler = _stream(path, call, self._service, self._terms)
        return grpc.stream_stream_rpc_method_handler(handler)


def _unary(
    path: str, call: Unary, service: GrpcService, reader: TermsReader, only: Only
) -> Callable[[Any, Context], Awaitable[bytes]]:
    async def handle(requests: Any, context: Context) -> bytes:
        try:
            CALL.set((path, context))
            session = reader.session_of_call(context)
            admit(service.rules.get(path), session)
            return await call(await only(aiter(requests)), session)
        except Exception as error:  # noqa: BLE001 - `_abort` logs it
            await _abort(context, path, error)

    return handle


def _infer(
    service: GrpcService, reader: TermsReader, only: Only
) -> Callable[[Any, Context], Awaitable[bytes]]:
    async def handle(requests: Any, context: Context) -> bytes:
        try:
            CALL.set((MODEL_INFER, context))
            # who it is before its message is read
            reader.session_of_call(context).known()
            message = await only(aiter(requests))
            # now, for the time that the message took is gone
            return await service.model_infer(message, reader.of_call(context))
        except Exception as error:  # noqa: BLE001 - `_abort` logs it
            await _abort(context, MODEL_INFER, error)

    return handle


class Only:
    """Reads the one message of a unary call."""

    def __init__(self, message_s: float | None) -> None:
        """`message_s`: how long it may take; None: any time."""
        self._message_s = message_s

    async def __call__(self, messages: AsyncIterator[bytes]) -> bytes:
        """The message. Raises InvalidRequest when there is none, or more, and BodyTooSlow."""
        try:
            async with asyncio.timeout(self._message_s):
                message = await anext(messages, None)
                more = message is not None and await anext(messages, None) is not None
        except TimeoutError:
            expected = f"expected one gRPC message within {self._message_s:g} s"
            raise BodyTooSlow(expected) from None
        if message is None:
            raise InvalidRequest("expected one gRPC message, got none that is whole")
        if more:
            raise InvalidRequest("expected one gRPC message, got more")
        return message


def _stream(
    path: str, call: Stream, service: GrpcService, reader: TermsReader
) -> Callable[[Any, Context], AsyncIterator[bytes]]:
    async def handle(requests: Any, context: Context) -> AsyncIterator[bytes]:
        try:
            CALL.set((path, context))
            session = reader.session_of_call(context)
            admit(service.rules.get(path), session)
            async for response in call(aiter(requests), session):
                yield response
        except Exception as error:  # noqa: BLE001 - `_abort` logs it
            await _abort(context, path, error)

    return handle


def _infer_stream(
    service: GrpcService, reader: TermsReader
) -> Callable[[Any, Context], Awaitable[None]]:
    async def handle(requests: Any, context: Context) -> None:
        # not a generator: gRPC would leave it to the garbage collector when the call is cancelled
        try:
            CALL.set((MODEL_STREAM_INFER, context))
            call_terms = reader.of_call(context)
            terms = StreamTerms(call_terms, metadata_of(context), reader)
            stream = service.infer_streams.open(terms)
        except Exception as error:  # noqa: BLE001 - `_abort` logs it
            await _abort(context, MODEL_STREAM_INFER, error)
        reading = asyncio.get_running_loop().create_task(stream.read(aiter(requests)))
        try:
            await context.send_initial_metadata(())
            while messages := await stream.outbox.next():
                await context.write(messages[0])
        finally:
            stream.cancel()
            reading.cancel()
        if stream.error is not None:
            await _abort(context, MODEL_STREAM_INFER, stream.error)

    return handle


async def _abort(context: Context, path: str, error: Exception) -> NoReturn:
    """End the call with what the client may know of the error. Those that nobody foresaw are logged."""
    if not isinstance(error, PenstockError):
        log.error("%s failed", path, exc_info=error)
    code, text = status_of(error).grpc, text_of(error)
    await context.abort(_code(code), text, _trailers(code, text, retry_after_ms(error)))
    raise AssertionError("abort always raises")


def _trailers(
    code: GrpcCode, text: str, after_ms: int | None
) -> tuple[tuple[str, str | bytes], ...]:
    if after_ms is None:
        return ()
    return (DETAILS, status_details(code, text, after_ms)), (PUSHBACK, str(after_ms))


def _code(code: GrpcCode) -> grpc.StatusCode:
    return next(status for status in grpc.StatusCode if status.value[0] == int(code))


class PortableFront:
    """Both servers round one gateway, from start to drained end."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._settings = gateway.settings
        self._tls_files = TlsFiles.of_run(self._settings.run_dir or Path())
        self._stopping = asyncio.Event()
        gateway.link.on_shutdown = self._stopping.set

    async def run(self) -> None:
        """Serve until the supervisor says to stop, or is gone."""
        settings = self._settings
        rpc = self._grpc_server() if settings.allow_grpc else None
        if rpc is not None:
            await rpc.start()
        ports = settings.ports().items()
        servers = [self._http_server(port) for name, port in ports if name != "grpc_port"]
        serving = [asyncio.create_task(server.serve()) for server in servers]
        self._gateway.start()
        await self._stopping.wait()
        for server in servers:
            server.should_exit = True
        if rpc is not None:
            await rpc.stop(settings.exit_timeout_secs)
        await asyncio.gather(*serving)
        await self._gateway.close()

    def _grpc_server(self) -> Any:
        settings = self._settings
        limit = int(settings.grpc_max_message_bytes)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                # a second server on the port must fail, not take half of its calls
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                # else the kernel ends the connection of a client that reads slowly (TCP_USER_TIMEOUT)
                ("grpc.keepalive_timeout_ms", 2**31 - 1),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
            ]
        )
        message_s = settings.slow_client_secs * MESSAGE_PATIENCE or None
        table = RpcTable(self._gateway.grpc, self._gateway.terms, message_s)
        server.add_generic_rpc_handlers((table,))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.grpc_port}"
        if settings.tls.enabled:
            certificates = LatestGrpcCertificates(settings.tls, self._tls_files)
            server.add_secure_port(address, certificates.credentials())
        else:
            server.add_insecure_port(address)
        return server

    def _http_server(self, port: int) -> uvicorn.Server:
        config = uvicorn.Config(
            self._gateway.recorded(self._gateway.serve_http),
            host=self._settings.host,
            port=port,
            # said aloud: uvicorn takes bound methods for ASGI 2
            interface="asgi3",
            http=guarded(self._settings.slow_client_secs, IdentifyingProtocol),
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(self._settings.exit_timeout_secs) or 1,
        )
        config.load()
        if self._settings.tls.enabled:
            config.ssl = LatestContext(self._settings.tls, self._tls_files)
        return _QuietServer(config)


class IdentifyingProtocol(HttpToolsProtocol):
    """HTTP whose requests say who the client is by its certificate, as Envoy's do, and not what the client says."""

    _identity = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        if certificate:
            self._identity = forwarded(certificate)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._identity:
            self.headers.append((CERTIFICATE, self._identity))

    def on_header(self, name: bytes, value: bytes) -> None:
        # called for trailers too
        if name.lower() != CERTIFICATE:
            super().on_header(name, value)


class _QuietServer(uvicorn.Server):
    """A uvicorn that leaves signals to the supervisor."""

    def capture_signals(self) -> Any:
        """Capture none."""
        return contextlib.nullcontext()


class _Loop(uvloop.Loop):
    """Whose servers don't wait for ever for handshakes: uvicorn can't be told."""

    async def create_server(self, *args: Any, ssl: Any = None, **named: Any) -> Any:
        """As uvloop's, but for that."""
        if ssl is not None:
            named["ssl_handshake_timeout"] = HANDSHAKE_S
        return await super().create_server(*args, ssl=ssl, **named)


async def _serve() -> None:
    await PortableFront(Gateway.from_environment(framed=False)).run()


def main() -> int:
    """Run the portable front."""
    # Ctrl-C reaches the whole foreground group; the supervisor says when to stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvloop.run(_serve(), loop_factory=_Loop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
