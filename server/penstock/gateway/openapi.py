"""`/openapi.json`: an OpenAPI 3.1 document of all that answers over HTTP, made from the tables of the routers and from
the signatures of the models that are served."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from penstock.access.session import AnySession
from penstock.gateway import descriptions as described
from penstock.gateway import openapi_schemas as schemas
from penstock.gateway.http_types import HttpRequest, HttpResponse
from penstock.gateway.route_table import PathParameters, Route, RouteTable
from penstock.gateway.server_state import ServerState
from penstock.model_config import ModelConfig
from penstock.verbs import Verb

Json = dict[str, Any]

MODELS_TAG: Final = "models"
BINARY: Final = "application/octet-stream"
HEADERS: Final[Mapping[str, str]] = {
    described.TIMEOUT: "How long the client waits, in milliseconds",
    described.HEADER_LENGTH: "How many bytes of the body are JSON; binary tensors follow",
    "X-Amzn-SageMaker-Target-Model": "The model, where it is not the default one",
    "X-Vertex-Ai-Triton-Redirect": "Another route, such as v2/models/M/infer",
    "X-MLflow-Signature": "HMAC of delivery, time and body, as MLflow makes it",
    "X-MLflow-Delivery-Id": "Which delivery it is",
    "X-MLflow-Timestamp": "When it was sent, in seconds since 1970",
}

KINDS: Final[Mapping[str, Json]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JWT"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "certificate": {"type": "mutualTLS"},
}
"""Credentials, where access is controlled."""
SCHEMES: Final[Json] = {"securitySchemes": dict(KINDS)}


class OpenPort(NamedTuple):
    """A port and what answers there."""

    setting: str
    table: RouteTable


class OpenApi:
    """Makes the document when it is asked for, and anew when the models have changed."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._document = b""
        self._made_of: tuple[int, tuple[str, ...]] = (-1, ())
        self._secured = state.settings.access.mode != "off"
        self.ports: Sequence[OpenPort] = ()
        """What it describes."""

    def routes(self) -> Iterator[Route]:
        """`/openapi.json` itself."""

        async def show(_: PathParameters, request: HttpRequest) -> HttpResponse:
            return HttpResponse(self._encoded(request.session))

        yield Route("GET", "/openapi.json", show, described.OPENAPI)

    def _encoded(self, session: AnySession) -> bytes:
        models = [m for m in self._models() if session.may(Verb.READ_METADATA, m.name)]
        made_of = self._state.repository.generation, tuple(model.name for model in models)
        if made_of != self._made_of:
            self._document = msgspec.json.encode(self.document(models))
            self._made_of = made_of
        return self._document

    def document(self, models: Iterable[ModelConfig]) -> Json:
        """The document, with these models."""
        paths: dict[str, Json] = {}
        for open_port in self.ports:
            own_server = self._server(open_port.setting)
            for route in open_port.table.routes:
                for path in route.paths:
                    # of two ports with one path the first has it
                    operation = {**_operation(route, path), **own_server}
                    if self._secured and route.description.rule.verb is None:
                        operation["security"] = []
                    paths.setdefault(path, {}).setdefault(route.method.lower(), operation)
        if any(port.setting == "http_port" for port in self.ports):
            for config in models:
                paths |= _model_paths(config)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Penstock",
                "version": self._state.version,
                "summary": "The Open Inference Protocol with Triton's extensions.",
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {"schemas": schemas.SHARED, **(SCHEMES if self._secured else {})},
            **({"security": [{name: []} for name in KINDS]} if self._secured else {}),
        }

    def _server(self, setting: str) -> Json:
        """Where the operations are, if it is not where the document comes from."""
        if setting == "http_port":
            return {}
        port = self._state.settings.ports()[setting]
        return {
            "servers": [
                {
                    "url": f"http://{{host}}:{port}",
                    "variables": {"host": {"default": "localhost"}},
                }
            ]
        }

    def _models(self) -> list[ModelConfig]:
        """Of each name its latest version that is served."""
        latest = {
            model.name: model.config
            for model in sorted(self._state.repository.served(), key=lambda model: model.version)
        }
        return [latest[name] for name in sorted(latest)]


def _operation(route: Route, path: str) -> Json:
    told = route.description
    names = re.findall(r"\{(\w+)\}", path)
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": schemas.TEXT} for name in names
    ]
    parameters += [
        {"name": name, "in": "header", "description": HEADERS[name], "schema": schemas.TEXT}
        for name in told.headers
    ]
    operation: Json = {
        "operationId": _operation_id(route.method, path),
        "tags": [told.tag],
        "summary": told.summary,
        "parameters": parameters,
        "responses": _responses(route, schemas.ref(told.response) if told.response else None),
    }
    if told.request:
        operation["requestBody"] = {
            "required": not told.optional_body,
            "content": _content(schemas.ref(told.request), told.request == "InferRequest"),
        }
    return operation


def _responses(route: Route, success: Json | None) -> Json:
    told = route.description
    responses: Json = {}
    if told.errors != (HTTPStatus.NOT_IMPLEMENTED,):
        answer: Json = {"description": "OK"}
        if success is not None:
            binary = told.response == "InferResponse"
            answer["content"] = _content(success, binary, told.media_type)
        responses["200"] = answer
    for status in told.errors:
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": _content(schemas.ref("Error")),
        }
    return responses


def _content(schema: Json, binary: bool = False, media_type: str = "application/json") -> Json:
    content: Json = {media_type: {"schema": schema}}
    return {**content, BINARY: {}} if binary else content


def _operation_id(method: str, path: str) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", path).strip("_")
    return f"{method.lower()}_{words}"


# ── of one model ────────────────────────────────────────────────────────────────────────────────────────────────────


def _model_paths(config: ModelConfig) -> dict[str, Json]:
    name = quote(config.name, safe="")
    if config.decoupled:
        return _streaming_paths(config, f"/v2/models/{name}")
    infer, predict = f"/v2/models/{name}/infer", f"/v1/models/{name}:predict"
    return {
        infer: _of_model(
            config,
            Route("POST", infer, _never, described.INFER),
            schemas.infer_request(config),
            schemas.infer_response(config),
            schemas.infer_example(config),
        ),
        predict: _of_model(
            config,
            Route("POST", predict, _never, described.V1_PREDICT),
            schemas.predict_request(config),
            schemas.predict_response(config),
            schemas.predict_example(config),
        ),
    }


def _streaming_paths(config: ModelConfig, model: str) -> dict[str, Json]:
    """Of a decoupled model, which answers nothing else over HTTP."""
    paths = f"{model}/generate", f"{model}/generate_stream"
    told = described.GENERATE, described.GENERATE_STREAM
    return {
        path: _of_model(
            config,
            Route("POST", path, _never, description),
            schemas.generate_request(config),
            schemas.generate_response(config),
            schemas.generate_example(config),
        )
        for path, description in zip(paths, told, strict=True)
    }


def _of_model(
    config: ModelConfig, route: Route, request: Json, response: Json, example: Json | None
) -> Json:
    """The path item of an inference route with the model's own schemas."""
    operation = _operation(route, route.template)
    operation |= {
        # also of names that differ only in what an operation's id can't have
        "operationId": f"{operation['operationId']}_{config.name.encode().hex()}",
        "tags": [MODELS_TAG],
        "summary": f"Run {config.name}",
        "responses": _responses(route, response),
        "x-inputs": schemas.signature_of(config, "input"),
        "x-outputs": schemas.signature_of(config, "output"),
    }
    operation["requestBody"]["content"]["application/json"] = {
        "schema": request,
        **({} if example is None else {"example": example}),
    }
    return {"post": operation}


async def _never(_: PathParameters, __: HttpRequest) -> HttpResponse:
    raise AssertionError("only described, never called")
