"""Which model Vertex AI's predictions are for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock.config import Settings
from penstock.errors import InvalidRequest
from penstock.gateway.http_types import HttpRequest, InferCall
from penstock.gateway.vertex_ai import VertexAi

pytestmark = pytest.mark.extension("vertex_ai")


def door(*ready: str, default: str = "") -> VertexAi:
    settings = Settings(
        allow_vertex_ai=True,
        vertex_ai_default_model=default,
        vertex_ai_predict_route="/predict/",
        vertex_ai_health_route="/",
    )
    served = [SimpleNamespace(name=name, ready=True) for name in ready]
    served.append(SimpleNamespace(name="crashed", ready=False))
    repository = SimpleNamespace(served=lambda: served)
    state: Any = SimpleNamespace(settings=settings, repository=repository, ready=True)
    nobody: Any = None
    return VertexAi(state, nobody, nobody)


async def asked(vertex_ai: VertexAi) -> str:
    call = await vertex_ai("/predict", HttpRequest("POST", {}, b""))
    assert isinstance(call, InferCall)
    return call.name


async def test_the_only_model_is_the_default() -> None:
    for vertex_ai in (door("a"), door("a", "a"), door("b", "a", default="a")):
        assert vertex_ai.problem() == ""
        assert await asked(vertex_ai) == "a"


@pytest.mark.parametrize("ready", [(), ("a", "b")])
async def test_none_or_several_without_a_default(ready: tuple[str, ...]) -> None:
    vertex_ai = door(*ready)
    text = "Expect the model repository contains only a single model if default model is not"
    assert vertex_ai.problem().startswith(text)
    with pytest.raises(InvalidRequest, match=text):
        await asked(vertex_ai)


def test_a_default_that_is_not_ready() -> None:
    assert door("a", default="crashed").problem() == "Expect the default model 'crashed' is loaded"


async def test_health_may_be_at_the_root() -> None:
    reply: Any = await door("a")("/", HttpRequest("GET", {}, b""))
    assert reply.status == 200
