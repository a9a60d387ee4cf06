"""All routes of all ports, and all RPCs, of a gateway that has every one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Final

from penstock.access.rules import Rule
from penstock.access_config import AccessSettings
from penstock.config import Settings
from penstock.gateway.aside import Aside
from penstock.gateway.doors import Doors
from penstock.gateway.grpc_service import GrpcService
from penstock.gateway.http_asgi import Door
from penstock.gateway.inference import Inference
from penstock.gateway.rollouts_api import RolloutsApi
from penstock.gateway.route_table import Route, RouteTable
from penstock.gateway.server_state import ServerState
from penstock.gateway.tenants_api import TenantsApi
from penstock.telemetry.host import HostReader
from penstock.telemetry.metrics import MetricsPage

SETTINGS: Final = Settings(
    access=AccessSettings(mode="required"),
    allow_sagemaker=True,
    sagemaker_port=8081,
    allow_vertex_ai=True,
    vertex_ai_port=8082,
    vertex_ai_predict_route="/predict",
    vertex_ai_health_route="/health",
    allow_client_shm=True,
)


def doors(settings: Settings = SETTINGS) -> Doors:
    """All ports."""
    repository: Any = SimpleNamespace(set_logging=None, generation=0, served=lambda: ())
    state = ServerState(settings, repository)
    inference = Inference(repository, state.client_memory)
    metrics = MetricsPage(lambda: (), HostReader(interval_ns=10**9), settings.metrics)
    linked: Any = SimpleNamespace()
    rollouts: Any = SimpleNamespace(pause=None, resume=None, promote=None)
    tenants = TenantsApi(None, {})
    return Doors(state, inference, Aside(), metrics, linked, tenants, RolloutsApi(rollouts))


def service() -> GrpcService:
    """All RPCs."""
    repository: Any = SimpleNamespace(set_logging=None, generation=0, served=lambda: ())
    state = ServerState(SETTINGS, repository)
    return GrpcService(state, Inference(repository, state.client_memory), Aside(), framed=True)


def routes_and_doors() -> Iterator[tuple[Door, Route]]:
    """Each route with the port that answers it."""
    made = doors()
    for door in (made.routes, *made.by_port.values()):
        table = getattr(door, "table", None) or getattr(door, "_table")  # noqa: B009
        assert isinstance(table, RouteTable)
        for route in table.routes:
            yield door, route


def every_route() -> list[Route]:
    """Without those of gRPC's port, which has none."""
    return [route for _, route in routes_and_doors()]


def every_rpc() -> Mapping[str, Rule]:
    """Path → rule."""
    return service().rules
