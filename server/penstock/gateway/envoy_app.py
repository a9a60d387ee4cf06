"""The ASGI app that runs inside Envoy: `penstock.gateway.envoy_app:app`."""

from __future__ import annotations

import os
import signal
from typing import Final

from penstock.gateway.asgi import App, Receive, Scope, Send
from penstock.gateway.gateway import Gateway
from penstock.gateway.grpc_service import MODEL_INFER


class EnvoyApp:
    """Makes the gateway when the bridge's event loop starts, and hands it every request."""

    _gateway: Gateway
    _grpc: App
    _others: App

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. An exception during start-up ends Envoy, and so tells the supervisor."""
        if scope["type"] == "http":
            # one coroutine less on the way of each inference
            app = self._grpc if scope["path"] == MODEL_INFER else self._others
            await app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._gateway = Gateway.from_environment(framed=True)
        self._grpc = self._gateway.recorded(self._gateway.grpc_over_asgi)
        self._others = self._gateway.recorded(self._gateway)
        self._gateway.link.on_shutdown = _end_without_supervisor
        self._gateway.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._gateway.close()
        await send({"type": "lifespan.shutdown.complete"})


def _end_without_supervisor() -> None:
    """The supervisor asks Envoy itself to quit; when the supervisor is gone, nobody else will."""
    if os.getppid() == 1:
        os.kill(os.getpid(), signal.SIGKILL)


app: Final = EnvoyApp()
