"""GET …/explain: what a model's pool tells of itself, with the model's name."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.errors import NotFound
from penstock.gateway.http_routes import HttpRoutes
from penstock.gateway.http_types import HttpRequest, HttpResponse

TOLD = {"policy": {"max_rows": 8}, "queue": {"requests": 2, "drain_us": float("inf")}}


class FakeRepository:
    """A ModelRepository of `m`, versions 1 and 2."""

    def get(self, name: str, version: str = "") -> Any:
        if name != "m":
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        pool = SimpleNamespace(explain=lambda: TOLD)
        return SimpleNamespace(name=name, version=int(version or 2), pool=pool)


async def ask(path: str, method: str = "GET") -> HttpResponse:
    state: Any = SimpleNamespace(repository=FakeRepository(), client_memory=None)
    metrics: Any = None
    reply = await HttpRoutes(state, metrics)(path, HttpRequest(method, {}, b""))
    assert isinstance(reply, HttpResponse)
    return reply


@pytest.mark.parametrize(
    ("path", "version"), [("/v2/models/m/explain", "2"), ("/v2/models/m/versions/1/explain", "1")]
)
async def test_what_the_pool_tells(path: str, version: str) -> None:
    response = await ask(path)
    assert (response.status, response.content_type) == (200, "application/json")
    # JSON has no infinity
    queue = {"requests": 2, "drain_us": None}
    assert json.loads(response.body) == {**TOLD, "model": "m", "version": version, "queue": queue}


async def test_an_unknown_model() -> None:
    with pytest.raises(NotFound, match="unknown model: 'nobody'"):
        await ask("/v2/models/nobody/explain")


async def test_a_wrong_method() -> None:
    response = await ask("/v2/models/m/explain", "POST")
    assert (response.status, response.headers) == (405, (("allow", "GET"),))
