"""The ASGI app that runs inside Envoy: `penstock.gateway.envoy_app:app`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from penstock.gateway.asgi import Receive, Scope, Send
from penstock.gateway.gateway import Gateway
from penstock.gateway.grpc_service import MODEL_INFER
from penstock.gateway.no_task import NoTask, task_factory

BridgeApp = Callable[[Scope, Receive, Send], Awaitable[None] | NoTask]


class EnvoyApp:
    """Makes the gateway when the bridge's event loop starts, and hands it every request."""

    _gateway: Gateway
    _infer: BridgeApp
    _others: BridgeApp

    _asgi_single_callable = True
    """To the bridge, which takes what is no coroutine function for an application of ASGI 2."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | NoTask:
        """ASGI. An exception during start-up ends Envoy, and so tells the supervisor."""
        if scope["type"] != "http":
            return self._lifespan(scope, receive, send)
        app = self._infer if scope["path"] == MODEL_INFER else self._others
        return app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return
        await receive()
        asyncio.get_running_loop().set_task_factory(task_factory)
        self._gateway = Gateway.from_environment(framed=True)
        grpc = self._gateway.grpc_over_asgi
        recorded = self._gateway.recorded(grpc)
        # records go by what is noted in a task's context
        self._infer = grpc.infer if recorded is grpc else recorded
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
