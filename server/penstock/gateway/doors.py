"""All that answers over HTTP, and on which port: the protocol itself, metrics, and the protocols of other platforms."""

from __future__ import annotations

from typing import Final

from penstock.errors import NotFound
from penstock.gateway import descriptions as described
from penstock.gateway.aside import Aside
from penstock.gateway.audit_api import AuditApi
from penstock.gateway.auditing import Auditing
from penstock.gateway.docs_page import docs_routes
from penstock.gateway.http_asgi import Door
from penstock.gateway.http_infer import HttpInference
from penstock.gateway.http_routes import HttpRoutes
from penstock.gateway.http_types import HttpRequest, HttpResponse
from penstock.gateway.inference import Inference
from penstock.gateway.lineage_api import LineageApi, LineageSource
from penstock.gateway.openapi import OpenApi, OpenPort
from penstock.gateway.registry_api import RegistryApi
from penstock.gateway.rollouts_api import RolloutsApi
from penstock.gateway.route_table import PathParameters, Reply, Route, RouteTable
from penstock.gateway.sagemaker import SageMaker
from penstock.gateway.server_state import ServerState
from penstock.gateway.tenants_api import TenantsApi
from penstock.gateway.v1_infer import V1Inference
from penstock.gateway.vertex_ai import VertexAi
from penstock.repository.linked_models import LinkedModels
from penstock.telemetry.metrics import MetricsPage


class Doors:
    """One a gateway. `by_port` has all ports but that of HTTP itself."""

    def __init__(
        self,
        state: ServerState,
        inference: Inference,
        aside: Aside,
        metrics: MetricsPage,
        linked: LinkedModels,
        tenants: TenantsApi,
        rollouts: RolloutsApi,
        registry: RegistryApi | None = None,
        lineage: LineageSource | None = None,
    ) -> None:
        """`lineage`: what knows where models of a registry come from; None: there is no registry."""
        self.inference: Final = HttpInference(inference, state.repository, aside)
        v1 = V1Inference(inference, state.repository, aside)
        openapi = OpenApi(state)
        self.routes: Final = HttpRoutes(
            state,
            metrics,
            [
                *v1.routes(),
                *openapi.routes(),
                *docs_routes(),
                *tenants.routes(),
                *rollouts.routes(),
                *AuditApi(state.settings.audit).routes(),
                *LineageApi(state.repository, lineage).routes(),
                *(registry or RegistryApi()).routes(),
            ],
        )
        self._vertex_ai: VertexAi | None = None
        self.by_port: Final[dict[int, Door]] = {}
        openapi.ports = self._open(state, linked)
        self._tables = [self.routes.table, *(port.table for port in openapi.ports)]

    def _open(self, state: ServerState, linked: LinkedModels) -> list[OpenPort]:
        """Fill `by_port`. The ports whose routes are described, that of HTTP too."""
        ports = state.settings.ports()
        described_ports = [OpenPort("http_port", self.routes.table)] if "http_port" in ports else []
        if port := ports.get("metrics_port"):
            table = self._metrics_table()
            self.by_port[port] = _Only(table, "this port has /metrics only")
            described_ports.append(OpenPort("metrics_port", table))
        if port := ports.get("grpc_port"):
            self.by_port[port] = _Only(RouteTable(()), "this port has gRPC only")
        if port := ports.get("sagemaker_port"):
            sagemaker = SageMaker(state, self.inference, linked)
            self.by_port[port] = sagemaker
            described_ports.append(OpenPort("sagemaker_port", sagemaker.table))
        if port := ports.get("vertex_ai_port"):
            self._vertex_ai = VertexAi(state, self.inference, self.routes)
            self.by_port[port] = self._vertex_ai
            described_ports.append(OpenPort("vertex_ai_port", self._vertex_ai.table))
        return described_ports

    def record(self, auditing: Auditing | None) -> None:
        """Have recorded what is done to the server."""
        for table in self._tables:
            table.auditing = auditing

    def problem(self) -> str:
        """Why the models that were loaded at start can't be served as was asked for; empty: they can."""
        return "" if self._vertex_ai is None else self._vertex_ai.problem()

    def _metrics_table(self) -> RouteTable:
        async def metrics(_: PathParameters, request: HttpRequest) -> HttpResponse:
            return await self.routes.metrics(request)

        return RouteTable([Route("GET", "/metrics", metrics, described.METRICS)])


class _Only:
    """The door of a table, which says of other paths what they look for in vain."""

    def __init__(self, table: RouteTable, otherwise: str) -> None:
        self._table = table
        self._otherwise = otherwise
        self.admit: Final = table.admit

    async def __call__(self, path: str, request: HttpRequest) -> Reply:
        try:
            return await self._table(path, request)
        except NotFound as error:
            raise NotFound(self._otherwise) from error
