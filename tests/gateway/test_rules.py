"""Every RPC and every route asks something of its caller: all of them are walked here, on all ports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Final

import pytest

from penstock.access.permissions import Permissions
from penstock.access.principal import Principal
from penstock.access.rules import Rule
from penstock.access.session import AnySession, Session, UnknownSession
from penstock.access_config import AccessSettings, Role
from penstock.config import Settings
from penstock.errors import Forbidden, PenstockError, Unauthenticated
from penstock.gateway.aside import Aside
from penstock.gateway.doors import Doors
from penstock.gateway.grpc_service import MODEL_INFER, MODEL_STREAM_INFER, GrpcService
from penstock.gateway.http_asgi import Door
from penstock.gateway.inference import Inference
from penstock.gateway.route_table import Route, RouteTable
from penstock.gateway.rpc import admit
from penstock.gateway.server_state import ServerState
from penstock.protobuf import descriptor_pool, message_class, service_names
from penstock.telemetry.host import HostReader
from penstock.telemetry.metrics import MetricsPage
from penstock.verbs import Verb

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

PUBLIC_ROUTES: Final = {
    "/v2/health/live",
    "/v2/health/ready",
    "/livez",
    "/healthz",
    "/readyz",
    "/docs",
    "/docs/{file}",
    "/ping",
    "/health",
}
"""Whoever reaches the port is answered: whether the server lives, and a page that holds nothing of it."""

PUBLIC_RPCS: Final = {
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
}

NOT_SERVED: Final = {"/grpc.health.v1.Health/List"}


def doors(settings: Settings = SETTINGS) -> Doors:
    repository: Any = SimpleNamespace(set_logging=None, generation=0, served=lambda: ())
    state = ServerState(settings, repository)
    inference = Inference(repository, state.client_memory)
    metrics = MetricsPage(lambda: (), HostReader(interval_ns=10**9), settings.metrics)
    linked: Any = SimpleNamespace()
    return Doors(state, inference, Aside(), metrics, linked)


def service() -> GrpcService:
    repository: Any = SimpleNamespace(set_logging=None, generation=0, served=lambda: ())
    state = ServerState(SETTINGS, repository)
    return GrpcService(state, Inference(repository, state.client_memory), Aside(), framed=True)


def every_route() -> Iterator[tuple[Door, Route]]:
    made = doors()
    for door in (made.routes, *made.by_port.values()):
        table = getattr(door, "table", None) or getattr(door, "_table")  # noqa: B009
        assert isinstance(table, RouteTable)
        for route in table.routes:
            yield door, route


ROUTES: Final = [
    pytest.param(door, route, id=f"{route.method} {route.template}")
    for door, route in every_route()
]


def session_for(*verbs: Verb, models: tuple[str, ...] = ("*",)) -> Session:
    principal = Principal("key:x", "a", ("r",), "api_key")
    roles = {"r": Role(verbs=verbs, models=models)}
    return Session(principal, Permissions(principal, roles), None, ignore)


def ignore(principal: Principal | None, error: PenstockError, verb: str, model: str) -> None:
    pass


UNKNOWN: Final = UnknownSession(Unauthenticated("who?"), ignore)


def allowed(door: Door, route: Route, session: AnySession) -> bool:
    """Whether any of its paths, with every name in it `m`, is open to the session: all must be alike."""
    found = set()
    for template in route.paths:
        path = re.sub(r"\{\w+\}", "m", template)
        try:
            door.admit(route.method, path, session)
            found.add(True)
        except (Forbidden, Unauthenticated):
            found.add(False)
    (only,) = found
    return only


@pytest.mark.parametrize(("door", "route"), ROUTES)
def test_a_route_has_a_rule_which_is_kept(door: Door, route: Route) -> None:
    verb = route.description.rule.verb
    assert (verb is None) == (route.template in PUBLIC_ROUTES)
    assert allowed(door, route, UNKNOWN) == (verb is None)
    for each in Verb:
        assert allowed(door, route, session_for(each)) == (verb in (None, each))


@pytest.mark.parametrize(("door", "route"), ROUTES)
def test_a_rule_about_a_model_names_it(door: Door, route: Route) -> None:
    rule = route.description.rule
    if "{model}" in route.template:
        assert rule.verb is not None
        assert rule.model == "model"
        assert allowed(door, route, session_for(rule.verb, models=("m",)))
        assert not allowed(door, route, session_for(rule.verb, models=("other",)))


def test_who_is_not_known_is_not_told_which_routes_there_are() -> None:
    made = doors()
    for door in (made.routes, *made.by_port.values()):
        with pytest.raises(Unauthenticated):
            door.admit("GET", "/v2/no-such-route", UNKNOWN)
        door.admit("GET", "/v2/no-such-route", session_for())


def all_rpcs() -> list[str]:
    pool = descriptor_pool()
    return [
        f"/{name}/{method.name}"
        for name in service_names()
        for method in pool.FindServiceByName(name).methods
    ]


def test_every_rpc_has_a_rule() -> None:
    rules = service().rules
    assert set(rules) == set(all_rpcs()) - NOT_SERVED
    made = service()
    assert set(rules) == {*made.unary, *made.streams, MODEL_INFER, MODEL_STREAM_INFER}
    assert {path for path, rule in rules.items() if rule.verb is None} == PUBLIC_RPCS


@pytest.mark.parametrize("path", sorted(set(all_rpcs()) - NOT_SERVED))
def test_the_rule_of_an_rpc_is_kept(path: str) -> None:
    rule = service().rules[path]
    if rule.verb is None:
        admit(rule, UNKNOWN)
        return
    with pytest.raises(Unauthenticated):
        admit(rule, UNKNOWN)
    if not rule.model:
        admit(rule, session_for(rule.verb))
        with pytest.raises(Forbidden):
            admit(rule, session_for(*(verb for verb in Verb if verb != rule.verb)))


@pytest.mark.parametrize(
    "path", [path for path, rule in service().rules.items() if rule.verb and rule.model]
)
async def test_the_rule_of_an_rpc_about_a_model_is_kept(path: str) -> None:
    made = service()
    rule = made.rules[path]
    assert rule.verb is not None
    message = named(path, rule, "m")
    others = session_for(*(verb for verb in Verb if verb != rule.verb))
    for session in (others, session_for(rule.verb, models=("other",))):
        with pytest.raises(Forbidden, match=f"^not allowed: {rule.verb.value} of model 'm'$"):
            await made.unary[path](message, session)


def named(path: str, rule: Rule, model: str) -> bytes:
    service_name, _, method = path[1:].partition("/")
    descriptor = descriptor_pool().FindServiceByName(service_name).FindMethodByName(method)
    cls: Any = message_class(descriptor.input_type.full_name)
    data: bytes = cls(**{rule.model: model}).SerializeToString()
    return data


async def test_no_rpc_is_served_that_is_not_known() -> None:
    with pytest.raises(Unauthenticated):
        admit(None, UNKNOWN)
    admit(None, session_for())
