"""Vertex AI's door: a route for health, and one for predictions that leads to every other route by a header."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from msgspec import structs

from penstock.access.session import AnySession
from penstock.errors import InvalidRequest, NotFound
from penstock.gateway import descriptions as described
from penstock.gateway.http_routes import HttpRoutes, model_path
from penstock.gateway.http_types import HttpRequest, HttpResponse, InferCall, InferenceWire, header
from penstock.gateway.mime_inference import MimeInference
from penstock.gateway.route_table import PathParameters, Reply, Route, RouteTable
from penstock.gateway.server_state import ServerState
from penstock.verbs import Verb

REDIRECT: Final = b"x-vertex-ai-triton-redirect"


class VertexAi:
    """Answers the requests of Vertex AI's port."""

    def __init__(self, state: ServerState, inference: InferenceWire, routes: HttpRoutes) -> None:
        self._state = state
        self._settings = state.settings
        self._wire = MimeInference(inference, "vertex-ai")
        self._all = routes
        self.table = RouteTable(self._routes())

    def admit(self, method: str, path: str, session: AnySession) -> None:
        """As Door says."""
        self.table.admit(method, path, session)

    async def __call__(self, path: str, request: HttpRequest) -> Reply:
        """Answer a request. Raises PenstockError."""
        return await self.table(path, request)

    def problem(self) -> str:
        """Why the models that were loaded at start can't be what Vertex AI expects; empty: they can."""
        name = self._settings.vertex_ai_default_model
        ready = self._ready_models()
        if name and name not in ready:
            return f"Expect the default model '{name}' is loaded"
        if not name and len(ready) != 1:
            return (
                "Expect the model repository contains only a single model if default model is not specified"
                " (--vertex-ai-default-model)"
            )
        return ""

    def _routes(self) -> Iterator[Route]:
        settings = self._settings
        health = settings.vertex_ai_health_route.rstrip("/") or "/"
        predict = settings.vertex_ai_predict_route.rstrip("/") or "/"
        yield Route("GET", health, self._health, described.VERTEX_HEALTH)
        yield Route("POST", predict, self._predict, described.VERTEX_PREDICT)

    async def _health(self, _: PathParameters, __: HttpRequest) -> HttpResponse:
        return HttpResponse(status=HTTPStatus.OK if self._state.ready else HTTPStatus.BAD_REQUEST)

    async def _predict(self, _: PathParameters, request: HttpRequest) -> Reply:
        redirect = header(request.headers, REDIRECT)
        if not redirect:
            return InferCall(self._wire, self._default())
        path = f"/{redirect.lstrip('/')}"
        target = model_path(path)
        if target is not None and target[2] == "infer":
            return InferCall(self._wire, target[0], target[1])
        if path == "/metrics":
            request.session.check(Verb.METRICS)
            return await self._all.metrics(request)
        if not path.startswith("/v2"):
            raise NotFound(f"unknown route {path[:200]}")
        # predictions are POST, whatever the route behind them wants
        methods = self._all.table.methods(path)
        method = "POST" if "GET" not in methods or request.body.strip() else "GET"
        return await self._all(path, structs.replace(request, method=method))

    def _default(self) -> str:
        name = self._settings.vertex_ai_default_model
        if name:
            return name
        ready = self._ready_models()
        if len(ready) != 1:
            raise InvalidRequest(self.problem())
        return ready[0]

    def _ready_models(self) -> list[str]:
        return sorted({model.name for model in self._state.repository.served() if model.ready})
