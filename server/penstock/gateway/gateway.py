"""The gateway's composition root: makes the parts, wires them, and starts and ends them in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric

from penstock.access.assembly import Access
from penstock.access.tenant_audit import recorded_in
from penstock.audit.opening import open_log
from penstock.config import Settings
from penstock.devices.discovery import VISIBLE, Inventory
from penstock.devices.usage import UsageReader
from penstock.errors import ConfigError, Unavailable
from penstock.gateway.artifact_audit import recorded_checks
from penstock.gateway.asgi import App, Receive, Scope, Send
from penstock.gateway.aside import Aside
from penstock.gateway.auditing import Auditing, noting_call
from penstock.gateway.captured_inference import CapturedAuditedInference, CapturedInference
from penstock.gateway.capturing import Capturing
from penstock.gateway.disconnects import Disconnects
from penstock.gateway.doors import Doors
from penstock.gateway.eager_send import EagerSend
from penstock.gateway.grpc_asgi import GrpcOverAsgi
from penstock.gateway.grpc_service import GrpcService
from penstock.gateway.http_asgi import HttpOverAsgi
from penstock.gateway.http_generate import Generation
from penstock.gateway.inference import Inference
from penstock.gateway.inference_audit import AuditedInference
from penstock.gateway.registry_api import RegistryApi
from penstock.gateway.registry_audit import recorded_moves, recorded_notes
from penstock.gateway.registry_models import RegistryModels
from penstock.gateway.rollout_aliases import AliasFollower
from penstock.gateway.rollout_versions import Folders
from penstock.gateway.rollouts import Rollouts, rollouts_of
from penstock.gateway.rollouts_api import RolloutsApi
from penstock.gateway.server_state import ServerState
from penstock.gateway.tenant_usage import tenant_metrics
from penstock.gateway.tenants_api import TenantsApi
from penstock.gateway.terms import TermsReader
from penstock.logs import configure_logging
from penstock.registry.link import RegistryLink
from penstock.registry.messages import SOCKET
from penstock.registry.view import read_state
from penstock.repository.linked_models import LinkedModels
from penstock.repository.repository import ModelRepository
from penstock.repository.response_cache import response_cache
from penstock.scheduling.weights import TenantWeights
from penstock.secrets.source import SecretSource
from penstock.telemetry.audit_metrics import audit_metrics
from penstock.telemetry.gpu_metrics import gpu_metrics
from penstock.telemetry.host import HostReader
from penstock.telemetry.jwt_metrics import jwt_metrics
from penstock.telemetry.metrics import MetricsPage
from penstock.telemetry.registry_metrics import registry_metrics
from penstock.telemetry.rollout_metrics import rollout_metrics
from penstock.telemetry.secret_metrics import secret_metrics
from penstock.telemetry.tls_metrics import tls_metrics
from penstock.telemetry.tracing.tracing import Tracing
from penstock.workers.channel import Channel
from penstock.workers.control import ControlLink
from penstock.workers.gateway_environment import CONTROL_FD, SETTINGS_FILE
from penstock.workers.supervisor_messages import Report

log = logging.getLogger(__name__)

LINKED_MODELS = "linked-models"
"""In the run's folder: it outlives a gateway that crashes."""


class Gateway:
    """All parts of one gateway. Made on the event loop that runs it."""

    def __init__(self, settings: Settings, link: ControlLink, *, framed: bool) -> None:
        self.settings = settings
        self.link = link
        self._secrets = SecretSource(settings.secrets)
        self._gpus = Inventory(os.environ.get(VISIBLE))
        self._gpu_usage = UsageReader(self._gpus) if settings.allow_gpu_metrics else None
        self._audit_log = open_log(settings.audit, self._secrets)
        self.auditing = None if self._audit_log is None else Auditing(self._audit_log)
        weights = TenantWeights(settings.tenant_weights)
        linked = LinkedModels((settings.run_dir or Path()) / LINKED_MODELS)
        self.repository = self._models(linked, weights)
        self.registry = self._registry_link()
        """Where models come from, beside folders; None: from nowhere."""
        self._registry_models = self._follow_registry()
        self._tracing = Tracing(settings.tracing)
        self.state = ServerState(settings, self.repository, self._tracing)
        self._aside = Aside()
        told = [] if self.auditing is None else [self.auditing.refused]
        self._access = Access(settings, self._secrets, weights.follow, *told)
        self._capturing = self._open_capture()
        inference = self._inference()
        self._tenants = TenantsApi(
            self._access.tenants, settings.access.all_roles, recorded_in(self._audit_log)
        )
        self.terms = TermsReader(settings.tenant_header, self._tracing.switch, self._access.guard)
        self._rollouts = self._roll_out()
        self._aliases = AliasFollower(self._rollouts, settings.rollouts.follow)
        self._doors = Doors(
            self.state,
            inference,
            self._aside,
            self._metrics(),
            linked,
            self._tenants,
            RolloutsApi(self._rollouts),
            self._registry_api(),
            self.registry,
        )
        self._doors.record(self.auditing)
        self.grpc = GrpcService(
            self.state, inference, self._aside, framed=framed, auditing=self.auditing
        )
        disconnects = Disconnects()
        self.grpc_over_asgi = self._grpc_over_asgi(disconnects)
        self._http = self._http_over_asgi(inference, disconnects)
        self._loading: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._listen()

    def _models(self, linked: LinkedModels, weights: TenantWeights) -> ModelRepository:
        """All models, none of them loaded yet. What becomes of their checks is recorded."""
        repository = ModelRepository(
            self.settings,
            self.link,
            linked,
            response_cache(self.settings),
            weights,
            lambda reference: self._secrets.get(reference).reveal(),
            self._gpus.found,
        )
        if self._audit_log is not None:
            loop = asyncio.get_running_loop()
            repository.trust.observe(recorded_checks(self._audit_log, loop))
        return repository

    def _registry_link(self) -> RegistryLink | None:
        view, run_dir = self.repository.registry_view, self.settings.run_dir
        if view is None or run_dir is None:
            return None
        timeout_s = self.settings.registry.timeout_secs
        return RegistryLink(run_dir / SOCKET, read_state(view), timeout_s=timeout_s)

    def _follow_registry(self) -> RegistryModels | None:
        if self.registry is None:
            return None
        models = RegistryModels(self.settings, self.registry, self.repository)
        if self._audit_log is not None:
            self.registry.on_note = recorded_notes(self._audit_log)
            models.on_moved = recorded_moves(self._audit_log)
        return models

    def _registry_api(self) -> RegistryApi:
        reference, auditing = self.settings.registry.webhook_secret, self.auditing
        return RegistryApi(
            self.registry,
            None if reference is None else lambda: self._secrets.get(reference),
            lambda error, count: (
                None if auditing is None else auditing.refused(None, error, "", "", count)
            ),
        )

    def _inference(self) -> Inference:
        """With records of what is inferred, for the audit log and for training, where they are wanted."""
        parts = self.repository, self.state.client_memory, self._tracing
        audit_log = self._audit_log if self.settings.audit.inferences else None
        if self._capturing is None:
            return Inference(*parts) if audit_log is None else AuditedInference(*parts, audit_log)
        captured = (
            CapturedInference(*parts)
            if audit_log is None
            else CapturedAuditedInference(*parts, audit_log)
        )
        captured.capture = self._capturing.capture
        return captured

    def _open_capture(self) -> Capturing | None:
        """None: no records are kept."""
        if self.settings.capture.folder is None:
            return None
        return Capturing(self.settings, self._audit_log, self._access.may_keep)

    def _metrics(self) -> MetricsPage:
        """Those of models, and of each part that there is."""
        settings, quotas, tokens = self.settings, self._access.quotas, self._access.tokens
        usage = self._gpu_usage
        return MetricsPage(
            lambda: (model.statistics for model in self.repository.served()),
            HostReader(interval_ns=settings.metrics_interval_ms * 1_000_000),
            settings.metrics,
            [
                tls_metrics(lambda: self.link.tls),
                secret_metrics(self._secrets.health),
                self.repository.trust.counts.metrics,
                rollout_metrics(self._rollouts.index.runs),
                *([] if quotas is None else [tenant_metrics(quotas, settings.quotas).families]),
                *([] if self._audit_log is None else [audit_metrics(self._audit_log.counts)]),
                *([] if tokens is None else [jwt_metrics(tokens.states)]),
                *([] if self._capturing is None else [self._capturing.metrics]),
                *self._registry_metrics(),
                *([] if usage is None else [gpu_metrics(lambda: usage.last)]),
            ],
            None if usage is None else usage.read,
        )

    def _registry_metrics(self) -> list[Callable[[], Iterator[Metric]]]:
        link = self.registry
        if link is None:
            return []
        versions = self.repository.versions
        return [
            registry_metrics(
                lambda: link.state, lambda: link.connected, lambda name: len(versions(name))
            )
        ]

    def _grpc_over_asgi(self, disconnects: Disconnects) -> GrpcOverAsgi:
        return GrpcOverAsgi(
            self.grpc,
            self.terms,
            disconnects,
            self.settings.slow_client_secs,
            int(self.settings.grpc_max_message_bytes),
            self.settings.grpc_port,
        )

    def _http_over_asgi(self, inference: Inference, disconnects: Disconnects) -> HttpOverAsgi:
        return HttpOverAsgi(
            self._doors.routes,
            self._doors.inference,
            Generation(inference, self.repository, self._aside),
            self.terms,
            disconnects,
            self.settings.slow_client_secs,
            int(self.settings.http_max_input_size),
            self._doors.by_port,
        )

    def _roll_out(self) -> Rollouts:
        """All roll-outs, of models from folders and from the registry."""
        source = self.registry or Folders()
        rollouts = rollouts_of(self.settings, self.repository, source, self._audit_log)
        rollouts.effects.on_withdrawn = self.repository.trust.withdrawn
        return rollouts

    def _listen(self) -> None:
        """Hear of what models, the registry and the supervisor do."""
        if (registry := self.registry) is not None:
            registry.on_alias = self._aliases.moved
            registry.share_of = self._rollouts.index.share_of
            self._rollouts.effects.on_share = registry.statuses_changed
        self.repository.on_change = self._changed
        self.link.on_drain = self.drain
        if self.auditing is not None:
            self.link.on_tls = self.auditing.certificates

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
        return app if self.auditing is None else noting_call(app)

    def drain(self) -> None:
        """Not ready from now on; requests are answered as before, but for those that streams would go on to bring."""
        self.state.draining.set()
        self.grpc.infer_streams.drain()
        self.repository.drain()
        self._tell_watchers()

    async def close(self) -> None:
        """End all workers. The front has answered everything by now."""
        if self._loading is not None:
            self._loading.cancel()
        self._aside.close()
        if self._registry_models is not None:
            await self._registry_models.close()
        await self._aliases.close()
        await self._rollouts.close()
        await self.repository.close()
        if self._capturing is not None:
            await self._capturing.close()
        await asyncio.to_thread(self._tracing.close)
        await asyncio.to_thread(self._tenants.close)
        if self._access.quotas is not None:
            await self._access.quotas.close()
        await asyncio.to_thread(self._access.close)
        if self._audit_log is not None:
            await asyncio.to_thread(self._audit_log.close)
        await asyncio.to_thread(self._secrets.close)
        self.link.close()

    async def _load(self) -> None:
        try:
            if not await self._start_access() or not await self._start_audit():
                return
            if self._capturing is not None:
                self._capturing.start()
            await asyncio.to_thread(self._look_for_gpus)
            await self._rollouts.restore()
            if self._registry_models is None:
                await self.repository.start()
            else:
                await self._registry_models.start(self.repository.start)
            self._rollouts.models_are_loaded()
            self._aliases.begin()
            problem = self._doors.problem()
            if problem and await self.link.inherited() is None:
                self.link.fail(problem)
                return
        except OSError as error:
            self.link.fail(f"the model repository can't be read: {error}")
            return
        except Exception as error:
            log.exception("start-up failed")
            self.link.fail(f"start-up failed: {type(error).__name__}: {error}")
            return
        self.state.started = True
        _spare_the_collector()
        self._changed()

    def _look_for_gpus(self) -> None:
        """Before any model is loaded. Energy counts from here on."""
        found = self._gpus.found()
        if self._gpu_usage is not None:
            self._gpu_usage.read()
        if found.gpus:
            log.info("GPUs: %s (driver %s)", ", ".join(map(str, found.gpus)), found.driver)
        else:
            log.debug("no GPUs: %s", found.reason)

    async def _start_access(self) -> bool:
        """Whether to go on: a gateway that takes the place of another serves whom it can."""
        try:
            await asyncio.to_thread(self._access.start)
        except ConfigError as error:
            if await self.link.inherited() is None:
                self.link.fail(str(error))
                return False
            log.error("%s", error)  # noqa: TRY400 - it says all
        if self._access.quotas is not None:
            self._access.quotas.start()
        return True

    async def _start_audit(self) -> bool:
        """Whether to go on: when the server starts, an audit log that can't be written is a mistake in the settings."""
        if self._audit_log is None:
            return True
        try:
            await asyncio.to_thread(self._audit_log.probe)
        except Unavailable as error:
            goes_on = self.settings.audit.when_it_cant_be_written == "go_on"
            if not goes_on and await self.link.inherited() is None:
                self.link.fail(f"audit: {error}")
                return False
            log.error("audit: %s", error)  # noqa: TRY400 - it says all
        return True

    def _changed(self) -> None:
        self._rollouts.follow_models()
        if self.state.started:
            lines = tuple(self.repository.index())
            self.link.report(Report(lines, self.state.extensions, self.repository.wanted()))
        if self._registry_models is not None:
            self._registry_models.report()
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        async def notify() -> None:
            async with self.state.changed:
                self.state.changed.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def _spare_the_collector() -> None:
    """What start-up made stays: leave it out of every later collection. Requests are freed by their reference counts;
    the collector is only for cycles that errors leave."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
