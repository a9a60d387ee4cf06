"""One gateway as its front sees it, from its start to its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from pathlib import Path

from penstock.config import Settings
from penstock.gateway import obstacles
from penstock.gateway.asgi import App, Receive, Scope, Send
from penstock.gateway.auditing import noting_call
from penstock.gateway.composition import Composition
from penstock.gateway.eager_send import EagerSend
from penstock.logs import configure_logging
from penstock.workers.channel import Channel
from penstock.workers.control import ControlLink
from penstock.workers.gateway_environment import CONTROL_FD, SETTINGS_FILE
from penstock.workers.supervisor_messages import Report

log = logging.getLogger(__name__)


class Gateway:
    """Takes requests at once, and ends what it has begun in order. Made on the event loop that runs it."""

    def __init__(self, settings: Settings, link: ControlLink, *, framed: bool) -> None:
        self._parts = parts = Composition(settings, link, framed=framed)
        self.settings = settings
        self.link = link
        self.terms = parts.terms
        self.grpc = parts.grpc
        self.grpc_over_asgi = parts.grpc_over_asgi
        self._http = parts.http
        self._loading: asyncio.Task[None] | None = None
        parts.repository.on_change = self._changed
        link.on_drain = self.drain

    @classmethod
    def from_environment(cls, *, framed: bool) -> Gateway:
        """The gateway that the supervisor described in this process's environment."""
        settings = Settings.read(Path(os.environ[SETTINGS_FILE]))
        configure_logging(settings.log_settings, sys.stderr)
        link = ControlLink(Channel.from_fd(int(os.environ[CONTROL_FD])))
        return cls(settings, link, framed=framed)

    def start(self) -> None:
        """Begin to load models. The server is live at once, and ready when all that can be loaded are."""
        self._loading = asyncio.create_task(self._load())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: gRPC by its content type, anything else is HTTP."""
        for name, value in scope["headers"]:
            if name == b"content-type":
                if value.startswith(b"application/grpc"):
                    return await self.grpc_over_asgi(scope, receive, send)
                break
        return await self._http(scope, receive, send)

    async def serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI for HTTP alone, where another server takes gRPC, and whose `send` acts only when it is awaited."""
        sending = EagerSend(send)
        await self._http(scope, receive, sending)
        await sending.complete()

    def recorded(self, app: App) -> App:
        """The app, whose calls the audit log can name where there is one."""
        return app if self._parts.auditing is None else noting_call(app)

    def drain(self) -> None:
        """Not ready from now on; requests are answered as before, but for those that streams would go on to bring."""
        parts = self._parts
        parts.state.draining.set()
        self.grpc.infer_streams.drain()
        parts.repository.drain()
        parts.state.notify()

    async def close(self) -> None:
        """End all workers. The front has answered everything by now."""
        parts = self._parts
        if self._loading is not None:
            self._loading.cancel()
        parts.aside.close()
        if parts.registry.models is not None:
            await parts.registry.models.close()
        await parts.aliases.close()
        await parts.rollouts.close()
        await parts.repository.close()
        if parts.capturing is not None:
            await parts.capturing.close()
        await asyncio.to_thread(parts.tracing.close)
        await asyncio.to_thread(parts.tenants.close)
        if parts.access.quotas is not None:
            await parts.access.quotas.close()
        await asyncio.to_thread(parts.access.close)
        if parts.audit_log is not None:
            await asyncio.to_thread(parts.audit_log.close)
        await asyncio.to_thread(parts.secrets.close)
        self.link.close()

    async def _load(self) -> None:
        parts = self._parts
        try:
            if not await self._obstacles_are_gone():
                return
            if parts.capturing is not None:
                parts.capturing.start()
            await asyncio.to_thread(parts.gpus.look)
            await parts.rollouts.restore()
            if parts.registry.models is None:
                await parts.repository.start()
            else:
                await parts.registry.models.start(parts.repository.start)
            parts.rollouts.models_are_loaded()
            parts.aliases.begin()
            problem = parts.doors.problem()
            if problem and await obstacles.ends(self.link, problem):
                return
        except OSError as error:
            self.link.fail(f"the model repository can't be read: {error}")
            return
        except Exception as error:
            log.exception("start-up failed")
            self.link.fail(f"start-up failed: {type(error).__name__}: {error}")
            return
        parts.state.started = True
        _spare_the_collector()
        self._changed()

    async def _obstacles_are_gone(self) -> bool:
        """Whether to go on."""
        parts = self._parts
        if not await obstacles.start_access(parts.access, self.link):
            return False
        if parts.audit_log is None:
            return True
        goes_on = self.settings.audit.when_it_cant_be_written == "go_on"
        return await obstacles.probe_audit(parts.audit_log, self.link, goes_on=goes_on)

    def _changed(self) -> None:
        parts = self._parts
        parts.rollouts.follow_models()
        if parts.state.started:
            lines = tuple(parts.repository.index())
            self.link.report(Report(lines, parts.state.extensions, parts.repository.wanted()))
        if parts.registry.models is not None:
            parts.registry.models.report()
        parts.state.notify()


def _spare_the_collector() -> None:
    """What start-up made stays: leave it out of every later collection. Requests are freed by their reference counts;
    the collector is only for cycles that errors leave."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
