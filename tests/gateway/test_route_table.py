"""Templates of paths, and the methods they have."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.access.rules import PUBLIC
from penstock.errors import NotFound
from penstock.gateway.http_types import HttpRequest, HttpResponse
from penstock.gateway.route_table import Description, PathParameters, Route, RouteTable

MODEL = "/v2/models/{model}[/versions/{version}]"


def route(method: str, template: str) -> Route:
    async def answer(parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        told = [method, template, *(f"{k}={v}" for k, v in parameters.items())]
        return HttpResponse(" ".join(told).encode())

    return Route(method, template, answer, Description(tag="t", rule=PUBLIC, summary="s"))


TABLE = RouteTable(
    [
        route("GET", "/"),
        route("GET", "/v2/models/stats"),
        route("GET", MODEL),
        route("GET", f"{MODEL}/ready"),
        route("GET", "/v2/logging"),
        route("POST", "/v2/logging"),
        route("POST", "/v1/models/{model}:predict"),
        route("GET", "/v1/models/{model}"),
    ]
)


async def ask(path: str, method: str = "GET") -> HttpResponse:
    reply = await TABLE(path, HttpRequest(method, {}, b""))
    assert isinstance(reply, HttpResponse)
    return reply


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/", "GET /"),
        ("", "GET /"),
        ("/v2/models/stats", "GET /v2/models/stats"),
        ("/v2/models/m", f"GET {MODEL} model=m version="),
        ("/v2/models/m/", f"GET {MODEL} model=m version="),
        ("/v2/models/m/versions/2", f"GET {MODEL} model=m version=2"),
        ("/v2/models/versions/versions/2", f"GET {MODEL} model=versions version=2"),
        ("/v2/models/m.1 x/ready", f"GET {MODEL}/ready model=m.1 x version="),
        ("/v2/models/stats/ready", f"GET {MODEL}/ready model=stats version="),
        ("/v1/models/a:b", "GET /v1/models/{model} model=a:b"),
    ],
)
async def test_found(path: str, answer: str) -> None:
    assert (await ask(path)).body.decode() == answer


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models",
        "/v2/models//ready",
        "/v2/models/m/versions",
        "/v2/models/m/versions//ready",
        "/v2/models/m/other",
        "/v3",
    ],
)
async def test_not_found(path: str) -> None:
    with pytest.raises(NotFound, match="unknown route"):
        await ask(path)


async def test_methods() -> None:
    assert TABLE.methods("/v2/logging/") == ("GET", "POST")
    response = await ask("/v2/logging", "DELETE")
    assert (response.status, response.headers) == (405, (("allow", "GET, POST"),))
    assert b"method DELETE is not allowed, use GET, POST" in response.body
    assert (await ask("/v1/models/m:predict")).status == 405


def test_paths_for_the_document() -> None:
    assert TABLE.routes[2].paths == ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
    assert TABLE.routes[6].paths == ("/v1/models/{model}:predict",)


@given(st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1))
async def test_any_name_is_given_as_it_came(name: str) -> None:
    found: list[Mapping[str, str]] = []

    async def answer(parameters: PathParameters, _: HttpRequest) -> HttpResponse:
        found.append(parameters)
        return HttpResponse()

    told = Description(tag="t", rule=PUBLIC, summary="s")
    table = RouteTable([Route("GET", "/m/{model}/config", answer, told)])
    await table(f"/m/{name}/config", HttpRequest("GET", {}, b""))
    assert found == [{"model": name}]
