"""The HTTP routes of the protocol, but for inference itself: health, metadata, statistics, repository, metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec

from penstock.errors import InvalidRequest, NotFound, Unsupported
from penstock.gateway.client_memory_api import CudaMemoryApi, SystemMemoryApi, memory_path
from penstock.gateway.http_types import (
    HttpRequest,
    HttpResponse,
    error_response,
    header,
    json_response,
)
from penstock.gateway.server_state import SERVER_NAME, ServerState
from penstock.model_config import Tensor, wire_shape
from penstock.telemetry.metrics import MetricsPage

Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


class HttpRoutes:
    """Finds and answers all routes but `infer`."""

    def __init__(self, state: ServerState, metrics: MetricsPage) -> None:
        self._state = state
        self._repository = state.repository
        self._metrics = metrics
        self._memory: dict[str, SystemMemoryApi | CudaMemoryApi] = {
            "systemsharedmemory": SystemMemoryApi(state.client_memory),
            "cudasharedmemory": CudaMemoryApi(state.client_memory),
        }
        self._fixed: dict[str, dict[str, Handler]] = {
            "/v2": {"GET": self._server},
            "/v2/health/live": {"GET": self._live},
            "/v2/health/ready": {"GET": self._ready},
            "/livez": {"GET": self._live},
            "/healthz": {"GET": self._healthz},
            "/readyz": {"GET": self._healthz},
            "/v2/models": {"GET": self._models},
            "/v2/models/stats": {"GET": self._all_statistics},
            "/v2/repository/index": {"POST": self._index},
            "/v2/trace/setting": self._trace_setting(""),
            "/v2/logging": {"GET": self._logging, "POST": self._set_logging},
        }

    async def __call__(self, path: str, request: HttpRequest) -> HttpResponse:
        """Answer a request. Raises NotFound on an unknown route, and whatever the handler raises."""
        methods = self._fixed.get(path.rstrip("/") or path)
        if methods is None:
            methods = self._of_model(path) or self._of_repository(path)
        if methods is None:
            raise NotFound(f"unknown route {path[:200]}")
        handler = methods.get(request.method)
        if handler is None:
            allowed = ", ".join(methods)
            text = f"method {request.method} is not allowed, use {allowed}"
            response = error_response(text, HTTPStatus.METHOD_NOT_ALLOWED)
            return msgspec.structs.replace(response, headers=(("allow", allowed),))
        return await handler(request)

    def metrics(self, request: HttpRequest) -> HttpResponse:
        """The page for Prometheus."""
        body, content_type = self._metrics.render(header(request.headers, b"accept"))
        return HttpResponse(body, HTTPStatus.OK, content_type)

    # ── /v2/models/NAME[/versions/N][/WHAT] ─────────────────────────────────────────────────────────────────────────

    def _of_model(self, path: str) -> dict[str, Handler] | None:
        target = model_path(path)
        if target is None:
            return None
        name, version, action = target
        match action:
            case "":
                return {"GET": lambda _: self._metadata(name, version)}
            case "ready":
                return {"GET": lambda _: self._model_ready(name, version)}
            case "config":
                return {"GET": lambda _: self._config(name, version)}
            case "stats":
                return {"GET": lambda _: self._statistics(name, version)}
            case "explain":
                return {"GET": lambda _: self._explain(name, version)}
            case "infer":
                # only what is no POST gets here: `HttpOverAsgi` answers inference itself
                return {"POST": lambda _: _unknown(path)}
            case "generate" | "generate_stream":
                return _refusing("the generate extension", "POST")
            case "trace/setting" if not version:
                return self._trace_setting(name)
        return None

    def _of_repository(self, path: str) -> dict[str, Handler] | None:
        parts = path.strip("/").split("/")
        if parts[:3] == ["v2", "repository", "models"] and len(parts) == 5:
            name = parts[3]
            match parts[4]:
                case "load":
                    return {"POST": lambda request: self._load(name, request)}
                case "unload":
                    return {"POST": lambda request: self._unload(name)}
        if len(parts) == 4 and parts[:2] == ["v2", "repository"] and parts[3] == "index":
            return {"POST": self._index}
        if parts[0] == "v2" and (api := self._memory.get("".join(parts[1:2]))):
            target = memory_path(parts[2:])
            return target and api.routes(*target)
        return None

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

    async def _models(self, _: HttpRequest) -> HttpResponse:
        names = sorted({model.name for model in self._repository.served()})
        return json_response({"models": names})

    async def _metadata(self, name: str, version: str) -> HttpResponse:
        model = self._repository.get(name, version)
        largest = model.config.max_batch_size

        def described(tensor: Tensor) -> dict[str, Any]:
            shape = wire_shape(tensor, largest)
            return {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}

        return json_response(
            {
                "name": model.name,
                "versions": [str(number) for number in self._repository.versions(name)],
                "platform": model.config.platform or model.config.backend,
                "inputs": [described(tensor) for tensor in model.config.input],
                "outputs": [described(tensor) for tensor in model.config.output],
            }
        )

    async def _model_ready(self, name: str, version: str) -> HttpResponse:
        ready = self._repository.is_ready(name, version)
        return HttpResponse(status=HTTPStatus.OK if ready else HTTPStatus.BAD_REQUEST)

    async def _config(self, name: str, version: str) -> HttpResponse:
        return json_response(self._repository.get(name, version).config_dict)

    async def _statistics(self, name: str, version: str) -> HttpResponse:
        models = self._repository.matching(name, version)
        return json_response({"model_stats": [model.statistics.to_json() for model in models]})

    async def _explain(self, name: str, version: str) -> HttpResponse:
        model = self._repository.get(name, version)
        return json_response(
            {"model": model.name, "version": str(model.version), **model.pool.explain()}
        )

    async def _all_statistics(self, _: HttpRequest) -> HttpResponse:
        return await self._statistics("", "")

    async def _index(self, request: HttpRequest) -> HttpResponse:
        only_ready = _body_object(request).get("ready", False)
        if not isinstance(only_ready, bool):
            raise InvalidRequest("'ready' must be true or false")
        return json_response(
            [
                {"name": r.name, "version": r.version, "state": r.state, "reason": r.reason}
                for r in await self._repository.listing()
                if r.state == "READY" or not only_ready
            ]
        )

    def _trace_setting(self, model: str) -> dict[str, Handler]:
        async def show(_: HttpRequest) -> HttpResponse:
            return json_response(self._state.traces.to_json(model))

        async def change(request: HttpRequest) -> HttpResponse:
            return json_response(await self._state.traces.update(model, _body_object(request)))

        return {"GET": show, "POST": change}

    async def _logging(self, _: HttpRequest) -> HttpResponse:
        return json_response(self._state.logs.to_json())

    async def _set_logging(self, request: HttpRequest) -> HttpResponse:
        return json_response(self._state.logs.update(_body_object(request)))

    async def _load(self, name: str, request: HttpRequest) -> HttpResponse:
        if _body_object(request).get("parameters"):
            raise Unsupported("load parameters are not supported yet")
        self._repository.check_control_allowed()
        await self._repository.load(name)
        return HttpResponse()

    async def _unload(self, name: str) -> HttpResponse:
        self._repository.check_control_allowed()
        await self._repository.unload(name)
        return HttpResponse()


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
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not a JSON object: {error}") from error


async def _unknown(path: str) -> HttpResponse:
    raise NotFound(f"unknown route {path[:200]}")


def _refusing(what: str, *methods: str) -> dict[str, Handler]:
    """Handlers for what the protocol has and this server does not."""

    async def refuse(_: HttpRequest) -> HttpResponse:
        raise Unsupported(f"{what} is not supported yet")

    return dict.fromkeys(methods, refuse)
