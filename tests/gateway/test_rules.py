"""Every RPC and every route asks something of its caller: all of them are walked here, on all ports."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from every_rule import doors, routes_and_doors, service
from penstock.access.permissions import Permissions
from penstock.access.principal import Principal
from penstock.access.rules import Rule
from penstock.access.session import AnySession, Session, UnknownSession
from penstock.access_config import Role
from penstock.errors import Forbidden, PenstockError, Unauthenticated
from penstock.gateway.grpc_service import MODEL_INFER, MODEL_STREAM_INFER
from penstock.gateway.http_asgi import Door
from penstock.gateway.route_table import Route
from penstock.gateway.rpc import admit
from penstock.protobuf import descriptor_pool, message_class, service_names
from penstock.verbs import Verb

PUBLIC_ROUTES: Final = {
    "/v2/health/live",
    "/v2/health/ready",
    # its signature says whose it is
    "/v2/registry/webhook",
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


ROUTES: Final = [
    pytest.param(door, route, id=f"{route.method} {route.template}")
    for door, route in routes_and_doors()
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
