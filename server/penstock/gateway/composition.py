"""The gateway's composition root: each part is made here, of those that it needs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock.access.assembly import Access
from penstock.access.tenant_audit import recorded_in
from penstock.audit.opening import open_log
from penstock.config import Settings
from penstock.gateway.artifact_audit import recorded_checks
from penstock.gateway.aside import Aside
from penstock.gateway.auditing import Auditing
from penstock.gateway.capturing import Capturing
from penstock.gateway.disconnects import Disconnects
from penstock.gateway.doors import Doors
from penstock.gateway.gpus import Gpus
from penstock.gateway.grpc_asgi import GrpcOverAsgi
from penstock.gateway.grpc_service import GrpcService
from penstock.gateway.http_asgi import HttpOverAsgi
from penstock.gateway.http_generate import Generation
from penstock.gateway.inference import Inference
from penstock.gateway.recorded_inference import inference_of
from penstock.gateway.registry_parts import RegistryParts
from penstock.gateway.rollout_aliases import AliasFollower
from penstock.gateway.rollout_versions import Folders
from penstock.gateway.rollouts import Rollouts, rollouts_of
from penstock.gateway.rollouts_api import RolloutsApi
from penstock.gateway.server_state import ServerState
from penstock.gateway.tenant_usage import tenant_metrics
from penstock.gateway.tenants_api import TenantsApi
from penstock.gateway.terms import TermsReader
from penstock.repository.linked_models import LinkedModels
from penstock.repository.repository import ModelRepository
from penstock.repository.response_cache import response_cache
from penstock.scheduling.weights import TenantWeights
from penstock.secrets.source import SecretSource
from penstock.telemetry.audit_metrics import audit_metrics
from penstock.telemetry.host import HostReader
from penstock.telemetry.jwt_metrics import jwt_metrics
from penstock.telemetry.metrics import MetricsPage
from penstock.telemetry.rollout_metrics import rollout_metrics
from penstock.telemetry.secret_metrics import secret_metrics
from penstock.telemetry.tls_metrics import tls_metrics
from penstock.telemetry.tracing.tracing import Tracing
from penstock.workers.control import ControlLink

LINKED_MODELS = "linked-models"
"""In the run's folder: it outlives a gateway that crashes."""


class Composition:
    """All parts of one gateway, none of them started. Made on the event loop that runs them."""

    def __init__(self, settings: Settings, link: ControlLink, *, framed: bool) -> None:
        self.settings = settings
        self.link = link
        self.secrets = SecretSource(settings.secrets)
        self.gpus = Gpus(measured=settings.allow_gpu_metrics)
        self.audit_log = open_log(settings.audit, self.secrets)
        self.auditing = None if self.audit_log is None else Auditing(self.audit_log)
        weights = TenantWeights(settings.tenant_weights)
        linked = LinkedModels((settings.run_dir or Path()) / LINKED_MODELS)
        self.repository = self._models(linked, weights)
        self.registry = RegistryParts(
            settings, self.repository, self.secrets, self.audit_log, self.auditing
        )
        self.tracing = Tracing(settings.tracing)
        self.state = ServerState(settings, self.repository, self.tracing)
        self.aside = Aside()
        told = [] if self.auditing is None else [self.auditing.refused]
        self.access = Access(settings, self.secrets, weights.follow, *told)
        self.capturing = self._open_capture()
        inference = self._inference()
        self.tenants = TenantsApi(
            self.access.tenants, settings.access.all_roles, recorded_in(self.audit_log)
        )
        self.terms = TermsReader(settings.tenant_header, self.tracing.switch, self.access.guard)
        self.rollouts = self._roll_out()
        self.aliases = AliasFollower(self.rollouts, settings.rollouts.follow)
        self.doors = Doors(
            self.state,
            inference,
            self.aside,
            self._metrics(),
            linked,
            self.tenants,
            RolloutsApi(self.rollouts),
            self.registry.api,
            self.registry.link,
        )
        self.doors.record(self.auditing)
        self.grpc = GrpcService(
            self.state, inference, self.aside, framed=framed, auditing=self.auditing
        )
        disconnects = Disconnects()
        self.grpc_over_asgi = self._grpc_over_asgi(disconnects)
        self.http = self._http_over_asgi(inference, disconnects)
        self._hear()

    def _models(self, linked: LinkedModels, weights: TenantWeights) -> ModelRepository:
        """All models, none of them loaded yet. What becomes of their checks is recorded."""
        repository = ModelRepository(
            self.settings,
            self.link,
            linked,
            response_cache(self.settings),
            weights,
            lambda reference: self.secrets.get(reference).reveal(),
            self.gpus.found,
        )
        if self.audit_log is not None:
            loop = asyncio.get_running_loop()
            repository.trust.observe(recorded_checks(self.audit_log, loop))
        return repository

    def _inference(self) -> Inference:
        return inference_of(
            self.repository,
            self.state.client_memory,
            self.tracing,
            self.audit_log if self.settings.audit.inferences else None,
            self.capturing,
        )

    def _open_capture(self) -> Capturing | None:
        """None: no records are kept."""
        if self.settings.capture.folder is None:
            return None
        return Capturing(self.settings, self.audit_log, self.access.may_keep)

    def _metrics(self) -> MetricsPage:
        """Those of models, and of each part that there is."""
        settings, quotas, tokens = self.settings, self.access.quotas, self.access.tokens
        return MetricsPage(
            lambda: (model.statistics for model in self.repository.served()),
            HostReader(interval_ns=settings.metrics_interval_ms * 1_000_000),
            settings.metrics,
            [
                tls_metrics(lambda: self.link.tls),
                secret_metrics(self.secrets.health),
                self.repository.trust.counts.metrics,
                rollout_metrics(self.rollouts.index.runs),
                *([] if quotas is None else [tenant_metrics(quotas, settings.quotas).families]),
                *([] if self.audit_log is None else [audit_metrics(self.audit_log.counts)]),
                *([] if tokens is None else [jwt_metrics(tokens.states)]),
                *([] if self.capturing is None else [self.capturing.metrics]),
                *self.registry.metrics(),
                *self.gpus.metrics(),
            ],
            self.gpus.read_usage,
        )

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
            self.doors.routes,
            self.doors.inference,
            Generation(inference, self.repository, self.aside),
            self.terms,
            disconnects,
            self.settings.slow_client_secs,
            int(self.settings.http_max_input_size),
            self.doors.by_port,
        )

    def _roll_out(self) -> Rollouts:
        """All roll-outs, of models from folders and from the registry."""
        source = self.registry.link or Folders()
        rollouts = rollouts_of(self.settings, self.repository, source, self.audit_log)
        rollouts.effects.on_withdrawn = self.repository.trust.withdrawn
        return rollouts

    def _hear(self) -> None:
        """What the registry and the supervisor tell goes to those whom it is about."""
        self.registry.follow(self.rollouts, self.aliases)
        if self.auditing is not None:
            self.link.on_tls = self.auditing.certificates
