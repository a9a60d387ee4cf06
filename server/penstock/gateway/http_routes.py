"""The HTTP routes of the protocol, but for inference itself: health, metadata, statistics, repository, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

import msgspec

from penstock.access.session import AnySession
from penstock.errors import InvalidRequest, NotFound
from penstock.gateway import descriptions as described
from penstock.gateway.client_memory_api import CudaMemoryApi, SystemMemoryApi, memory_routes
from penstock.gateway.http_types import HttpRequest, HttpResponse, header, json_response
from penstock.gateway.model_control import ModelControl
from penstock.gateway.route_table import Handler, PathParameters, Reply, Route, RouteTable
from penstock.gateway.server_state import SERVER_NAME, ServerState
from penstock.model_config import Tensor, wire_shape
from penstock.telemetry.metrics import MetricsPage
from penstock.verbs import Verb


class HttpRoutes:
    """Finds and answers all routes but `infer`."""

    def __init__(
        self, state: ServerState, metrics: MetricsPage, others: Iterable[Route] = ()
    ) -> None:
        """`others`: what other protocols and the documentation add."""
        self._state = state
        self._repository = state.repository
        self._control = ModelControl(state.repository)
        self._metrics = metrics
        self._memory: dict[str, SystemMemoryApi | CudaMemoryApi] = {
            "systemsharedmemory": SystemMemoryApi(state.client_memory),
            "cudasharedmemory": CudaMemoryApi(state.client_memory),
        }
        self.table = RouteTable([*self._own_routes(), *others])

    def admit(self, method: str, path: str, session: AnySession) -> None:
        """As Door says."""
        self.table.admit(method, path, session)

    async def __call__(self, path: str, request: HttpRequest) -> Reply:
        """Answer a request. Raises NotFound on an unknown route, and whatever the handler raises."""
        return await self.table(path, request)

    async def metrics(self, request: HttpRequest) -> HttpResponse:
        """The page for Prometheus."""
        if self._metrics.prepare is not None:
            await asyncio.to_thread(self._metrics.prepare)
        body, content_type = self._metrics.render(header(request.headers, b"accept"))
        return HttpResponse(body, HTTPStatus.OK, content_type)

    def _own_routes(self) -> Iterator[Route]:
        """All of them, and what answers them. Of two that fit a path the first holds."""
        model = "/v2/models/{model}[/versions/{version}]"
        yield Route("GET", "/v2", _plain(self._server), described.SERVER)
        yield Route("GET", "/v2/health/live", _plain(self._live), described.LIVE)
        yield Route("GET", "/v2/health/ready", _plain(self._ready), described.READY)
        yield Route("GET", "/livez", _plain(self._live), described.LIVE)
        yield Route("GET", "/healthz", _plain(self._healthz), described.READYZ)
        yield Route("GET", "/readyz", _plain(self._healthz), described.READYZ)
        yield Route("GET", "/v2/models", _plain(self._models), described.MODELS)
        yield Route("GET", "/v2/models/stats", self._statistics, described.STATISTICS)
        yield Route("GET", model, _of_model(self._metadata), described.METADATA)
        yield Route("GET", f"{model}/ready", _of_model(self._model_ready), described.MODEL_READY)
        yield Route("GET", f"{model}/config", _of_model(self._config), described.CONFIG)
        yield Route("GET", f"{model}/stats", self._statistics, described.STATISTICS)
        yield Route("GET", f"{model}/explain", _of_model(self._explain), described.EXPLAIN)
        # only what is no POST gets here: `HttpOverAsgi` answers inference itself
        yield Route("POST", f"{model}/infer", _unknown, described.INFER)
        yield Route("POST", f"{model}/generate", _unknown, described.GENERATE)
        yield Route("POST", f"{model}/generate_stream", _unknown, described.GENERATE_STREAM)
        yield from self._repository_routes()
        for path in ("/v2/trace/setting", "/v2/models/{model}/trace/setting"):
            yield Route("GET", path, self._trace_setting, described.TRACE)
            yield Route("POST", path, self._change_trace_setting, described.SET_TRACE)
        yield Route("GET", "/v2/logging", _plain(self._logging), described.LOGGING)
        yield Route("POST", "/v2/logging", _plain(self._set_logging), described.SET_LOGGING)
        for kind, api in self._memory.items():
            yield from memory_routes(f"/v2/{kind}", api)

    def _repository_routes(self) -> Iterator[Route]:
        control = self._control

        async def index(parameters: PathParameters, request: HttpRequest) -> HttpResponse:
            return await control.index(request, parameters.get("repository", ""))

        async def load(parameters: PathParameters, request: HttpRequest) -> HttpResponse:
            repository = parameters.get("repository", "")
            return await control.load(parameters["model"], request, repository)

        async def unload(parameters: PathParameters, request: HttpRequest) -> HttpResponse:
            repository = parameters.get("repository", "")
            return await control.unload(parameters["model"], request, repository)

        repository = "/v2/repository"
        model = "models/{model}"
        yield Route("POST", f"{repository}/index", index, described.INDEX)
        yield Route("POST", f"{repository}/{model}/load", load, described.LOAD)
        yield Route("POST", f"{repository}/{model}/unload", unload, described.UNLOAD)
        of_one = f"{repository}/{{repository}}"
        yield Route("POST", f"{of_one}/index", index, described.INDEX)
        yield Route("POST", f"{of_one}/{model}/load", load, described.LOAD)
        yield Route("POST", f"{of_one}/{model}/unload", unload, described.UNLOAD)

    # ── handlers ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _live(self, _: HttpRequest) -> HttpResponse:
        return HttpResponse()

    async def _ready(self, _: HttpRequest) -> HttpResponse:
        # 400, as Triton: its clients and probes take anything but 200 as not ready
        return HttpResponse(status=HTTPStatus.OK if self._state.ready else HTTPStatus.BAD_REQUEST)

    async def _healthz(self, _: HttpRequest) -> HttpResponse:
        ready = self._state.ready
        return HttpResponse(status=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _server(self, _: HttpRequest) -> HttpResponse:
        return json_response(
            {
                "name": SERVER_NAME,
                "version": self._state.version,
                "extensions": self._state.extensions,
            }
        )

    async def _models(self, request: HttpRequest) -> HttpResponse:
        may = request.session.may
        names = sorted(
            {m.name for m in self._repository.served() if may(Verb.READ_METADATA, m.name)}
        )
        return json_response({"models": names})

    async def _metadata(self, name: str, version: str) -> HttpResponse:
        model = self._repository.get(name, version)
        largest = model.config.max_batch_size

        def described(tensor: Tensor) -> dict[str, Any]:
            shape = wire_shape(tensor, largest)
            return {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}

        told = {
            "name": model.name,
            "versions": [str(number) for number in self._repository.versions(name)],
            "platform": model.config.platform or model.config.backend,
            "inputs": [described(tensor) for tensor in model.config.input],
            "outputs": [described(tensor) for tensor in model.config.output],
        }
        properties = model.properties
        return json_response({**told, "properties": properties} if properties else told)

    async def _model_ready(self, name: str, version: str) -> HttpResponse:
        ready = self._repository.is_ready(name, version)
        return HttpResponse(status=HTTPStatus.OK if ready else HTTPStatus.BAD_REQUEST)

    async def _config(self, name: str, version: str) -> HttpResponse:
        return json_response(self._repository.get(name, version).described)

    async def _statistics(self, parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        """Of one model, or of all that its reader may know of."""
        name, version = parameters.get("model", ""), parameters.get("version", "")
        may = request.session.may
        models = [
            model.statistics.to_json()
            for model in self._repository.matching(name, version)
            if may(Verb.READ_STATISTICS, model.name)
        ]
        return json_response({"model_stats": models})

    async def _explain(self, name: str, version: str) -> HttpResponse:
        model = self._repository.get(name, version)
        return json_response(
            {"model": model.name, "version": str(model.version), **model.pool.explain()}
        )

    async def _trace_setting(self, parameters: PathParameters, _: HttpRequest) -> HttpResponse:
        return json_response(self._state.traces.to_json(parameters.get("model", "")))

    async def _change_trace_setting(
        self, parameters: PathParameters, request: HttpRequest
    ) -> HttpResponse:
        model = parameters.get("model", "")
        return json_response(await self._state.traces.update(model, _body_object(request)))

    async def _logging(self, _: HttpRequest) -> HttpResponse:
        return json_response(self._state.logs.to_json())

    async def _set_logging(self, request: HttpRequest) -> HttpResponse:
        return json_response(self._state.logs.update(_body_object(request)))


def model_path(path: str) -> tuple[str, str, str] | None:
    """`/v2/models/NAME[/versions/N][/ACTION]` → name, version (may be empty), action (may be empty)."""
    parts = path.strip("/").split("/")
    if parts[:2] != ["v2", "models"] or len(parts) < 3 or not parts[2]:
        return None
    if len(parts) >= 5 and parts[3] == "versions":
        return parts[2], parts[4], "/".join(parts[5:])
    return parts[2], "", "/".join(parts[3:])


def _body_object(request: HttpRequest) -> dict[str, Any]:
    if not request.body.strip():
        return {}
    try:
        return msgspec.json.decode(request.body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not a JSON object: {error}") from error


async def _unknown(parameters: PathParameters, _: HttpRequest) -> HttpResponse:
    raise NotFound(f"unknown route of model '{parameters['model'][:200]}'")


def _plain(handler: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> Handler:
    async def handle(_: PathParameters, request: HttpRequest) -> HttpResponse:
        return await handler(request)

    return handle


def _of_model(handler: Callable[[str, str], Awaitable[HttpResponse]]) -> Handler:
    """Of one that wants name and version (may be empty)."""

    async def handle(parameters: PathParameters, _: HttpRequest) -> HttpResponse:
        return await handler(parameters["model"], parameters.get("version", ""))

    return handle
