"""The model repository extension on both wires: index, load, unload, and what their parameters mean."""

from __future__ import annotations

import asyncio
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec
from google.protobuf.message import Message

from penstock.access.permissions import ANY
from penstock.access.rules import of, of_model
from penstock.access.session import AnySession
from penstock.errors import InvalidRequest
from penstock.gateway.http_types import HttpRequest, HttpResponse, json_response
from penstock.gateway.json_depth import check_json_depth
from penstock.gateway.rpc import Rpc
from penstock.protobuf import message_class
from penstock.repository.overrides import PREFIX, Override, check_given
from penstock.repository.repository import ModelRepository
from penstock.verbs import Verb
from penstock.workers.supervisor_messages import ModelReport

CHUNK_CHARACTERS: Final = 4 << 18
"""Of base64, decoded at once: the event loop takes its turn in between."""

LOAD: Final = of_model(Verb.LOAD, "model_name")


class ModelControl:
    """Answers the extension's requests."""

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository

    # ── HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def index(self, request: HttpRequest, repository: str = "") -> HttpResponse:
        """Of all repositories, or of the one named."""
        body = _body(request.body)
        only_ready = body.get("ready", False)
        if not isinstance(only_ready, bool):
            raise InvalidRequest("'ready' must be true or false")
        lines = await self._lines(repository, request.session, only_ready=only_ready)
        return json_response([_with_devices(line, request.session) for line in lines])

    async def load(self, name: str, request: HttpRequest, repository: str = "") -> HttpResponse:
        """Load a model, with what the body's parameters give."""
        self._repository.check_control_allowed()
        override = await asyncio.to_thread(_override_of_json, name, request.body)
        override = _given_by(request.session, override)
        await self._repository.load(name, override, repository)
        return HttpResponse()

    async def unload(self, name: str, request: HttpRequest, repository: str = "") -> HttpResponse:
        """Unload a model."""
        self._repository.check_control_allowed()
        parameters = _parameters(_body(request.body))
        _check_names(parameters, ("unload_dependents",), "unrecognized unload parameter")
        dependents = parameters.get("unload_dependents", False)
        if not isinstance(dependents, bool):
            raise InvalidRequest(
                "Unable to parse 'unload_dependents': attempt to access JSON non-boolean as boolean"
            )
        if dependents:
            request.session.check(Verb.LOAD, ANY)
        await self._repository.unload(name, dependents=dependents, repository=repository)
        return HttpResponse()

    # ── gRPC ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def rpcs(self) -> tuple[Rpc, ...]:
        """The RPCs."""
        return (
            ("RepositoryIndex", "RepositoryIndexRequest", of(Verb.READ_METADATA), self._index_rpc),
            (
                "RepositoryModelLoad",
                "RepositoryModelLoadRequest",
                LOAD,
                self._load_rpc,
            ),
            (
                "RepositoryModelUnload",
                "RepositoryModelUnloadRequest",
                LOAD,
                self._unload_rpc,
            ),
        )

    async def _index_rpc(self, request: Any, session: AnySession) -> Message:
        lines = await self._lines(request.repository_name, session, only_ready=request.ready)
        models = [_told(line, session) for line in lines]
        return message_class("inference.RepositoryIndexResponse")(models=models)

    async def _load_rpc(self, request: Any, session: AnySession) -> Message:
        self._repository.check_control_allowed()
        override = _given_by(session, _override_of_message(request))
        await self._repository.load(request.model_name, override, request.repository_name)
        return message_class("inference.RepositoryModelLoadResponse")()

    async def _unload_rpc(self, request: Any, session: AnySession) -> Message:
        self._repository.check_control_allowed()
        name = "unload_dependents"
        _check_names(request.parameters, (name,), "unrecognized unload parameter")
        dependents = False
        if name in request.parameters:
            if request.parameters[name].WhichOneof("parameter_choice") != "bool_param":
                raise InvalidRequest(
                    f"invalid value type for '{name}' parameter, expected bool_param."
                )
            dependents = request.parameters[name].bool_param
        if dependents:
            session.check(Verb.LOAD, ANY)
        await self._repository.unload(
            request.model_name, dependents=dependents, repository=request.repository_name
        )
        return message_class("inference.RepositoryModelUnloadResponse")()

    async def _lines(
        self, repository: str, session: AnySession, *, only_ready: bool
    ) -> Iterator[ModelReport]:
        lines = await self._repository.listing(repository)
        return (
            line
            for line in lines
            if (line.state == "READY" or not only_ready)
            and session.may(Verb.READ_METADATA, line.name)
        )


def _with_devices(line: ModelReport, session: AnySession) -> dict[str, str]:
    """What the message of gRPC has no field for, only where there is something to say."""
    told = _told(line, session)
    return {**told, "devices": line.devices} if line.devices else told


def _told(line: ModelReport, session: AnySession) -> dict[str, str]:
    """Why a model can't be loaded is for those to know who load it: it may tell of files."""
    return {
        "name": line.name,
        "version": line.version,
        "state": line.state,
        "reason": line.reason if session.may(Verb.LOAD, line.name) else "",
    }


def _override_of_json(model: str, body: bytes) -> Override | None:
    """What a load request gives. Raises InvalidRequest."""
    parameters = _parameters(_load_body(body))
    for name, value in parameters.items():
        _check_load_name(name)
        if not isinstance(value, str):
            raise InvalidRequest(
                f"invalid value type for load parameter {_shown(name)}, expected a string"
            )
    files = {name: value for name, value in parameters.items() if name != "config"}
    check_given(model, parameters.get("config"), files)
    decoded = {name: _decoded(name, value) for name, value in files.items()}
    return Override(parameters["config"], decoded) if parameters else None


def _override_of_message(request: Any) -> Override | None:
    """As `_override_of_json`."""
    for name, value in request.parameters.items():
        _check_load_name(name)
        expected = "string_param" if name == "config" else "bytes_param"
        if value.WhichOneof("parameter_choice") != expected:
            raise InvalidRequest(
                f"invalid value type for load parameter {_shown(name)}, expected {expected}."
            )
    if not request.parameters:
        return None
    given = dict(request.parameters)
    config = given.pop("config", None)
    check_given(request.model_name, config, given)
    files = {name: value.bytes_param for name, value in given.items()}
    return Override(config.string_param if config is not None else "", files)


def _given_by(session: AnySession, override: Override | None) -> Override | None:
    """Policies of trust go by whose request it is."""
    return None if override is None else replace(override, tenant=session.tenant)


def _check_load_name(name: str) -> None:
    if name != "config" and not name.startswith(PREFIX):
        raise InvalidRequest(f"unrecognized load parameter {_shown(name)}.")


def _decoded(name: str, text: str) -> bytes:
    """Base64, in pieces."""
    chunks = []
    try:
        data = text.encode("ascii")
        for start in range(0, len(data), CHUNK_CHARACTERS):
            piece = data[start : start + CHUNK_CHARACTERS]
            if b"=" in piece and start + CHUNK_CHARACTERS < len(data):
                raise binascii.Error("padding in the middle")
            chunks.append(binascii.a2b_base64(piece, strict_mode=True))
    except (UnicodeEncodeError, binascii.Error) as error:
        raise InvalidRequest(
            f"the value of load parameter {_shown(name)} is not base64: {error}"
        ) from error
    return b"".join(chunks)


def _body(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not a JSON object: {error}") from error


def _load_body(body: bytes) -> dict[str, Any]:
    """As `_body`, but it sees keys that are given twice: which of two files is meant nobody can know."""
    if not body.strip():
        return {}
    check_json_depth(body)
    try:
        value = json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidRequest(f"{_shown(key)} is given twice; expected each key once")
        found[key] = value
    return found


def _parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    parameters = body.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequest("'parameters' must be a JSON object")
    return parameters


def _check_names(given: Mapping[str, object], known: tuple[str, ...], problem: str) -> None:
    for name in given:
        if name not in known:
            raise InvalidRequest(f"{problem} {_shown(name)}.")


def _shown(name: str) -> str:
    return f"'{name[:200].encode(errors='backslashreplace').decode()}'"
