"""SageMaker's door: `/ping`, `/invocations`, and `/models` for endpoints of several models."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from penstock.access.session import AnySession
from penstock.errors import AlreadyExists, InvalidRequest, LoadFailed, NotFound, PenstockError
from penstock.gateway import descriptions as described
from penstock.gateway.http_types import (
    HttpRequest,
    HttpResponse,
    InferCall,
    InferenceWire,
    error_response,
    header,
    json_response,
)
from penstock.gateway.mime_inference import MimeInference
from penstock.gateway.route_table import PathParameters, Reply, Route, RouteTable
from penstock.gateway.server_state import ServerState
from penstock.gateway.status import text_of
from penstock.repository.folders import versions_in
from penstock.repository.linked_models import LinkedModels
from penstock.verbs import Verb

log = logging.getLogger(__name__)

TARGET_MODEL: Final = b"x-amzn-sagemaker-target-model"
NO_DEFAULT_MODEL: Final = "unspecified_SAGEMAKER_TRITON_DEFAULT_MODEL_NAME"
"""What Triton looks for, and so what its clients are told is not found."""
FORBIDDEN: Final = (Path("/dev"), Path("/proc"), Path("/sys"))
_OUT_OF_MEMORY: Final = re.compile(
    r"out ?of ?memory|MemoryError|\bOOM\b|bad_alloc|failed to allocate|no space left on device",
    re.I,
)

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$")]


class _Load(msgspec.Struct, frozen=True):
    model_name: _Name
    url: str


class SageMaker:
    """Answers the requests of SageMaker's port."""

    def __init__(self, state: ServerState, inference: InferenceWire, models: LinkedModels) -> None:
        self._state = state
        self._repository = state.repository
        self._wire = MimeInference(inference, "sagemaker")
        self._models = models
        self._default = state.settings.sagemaker_default_model or NO_DEFAULT_MODEL
        self.table = RouteTable(self._routes())

    def admit(self, method: str, path: str, session: AnySession) -> None:
        """As Door says."""
        self.table.admit(method, path, session)

    async def __call__(self, path: str, request: HttpRequest) -> Reply:
        """Answer a request. Raises PenstockError."""
        return await self.table(path, request)

    def _routes(self) -> Iterator[Route]:
        model = "/models/{model}"
        yield Route("GET", "/ping", self._ping, described.PING)
        yield Route("POST", "/invocations", self._invocations, described.INVOCATIONS)
        yield Route("GET", "/models", self._list, described.MME_LIST)
        yield Route("POST", "/models", self._load, described.MME_LOAD)
        yield Route("GET", model, self._get, described.MME_GET)
        yield Route("DELETE", model, self._unload, described.MME_UNLOAD)
        yield Route("POST", f"{model}/invoke", self._invoke, described.MME_INVOKE)

    async def _ping(self, _: PathParameters, __: HttpRequest) -> HttpResponse:
        return HttpResponse(status=HTTPStatus.OK if self._state.ready else HTTPStatus.BAD_REQUEST)

    async def _invocations(self, _: PathParameters, request: HttpRequest) -> InferCall:
        return InferCall(self._wire, header(request.headers, TARGET_MODEL) or self._default)

    async def _invoke(self, parameters: PathParameters, _: HttpRequest) -> InferCall:
        return InferCall(self._wire, self._known(parameters))

    async def _list(self, _: PathParameters, request: HttpRequest) -> HttpResponse:
        found = [
            _described(name, folder)
            for name, folder in self._models.folders().items()
            if self._repository.is_ready(name) and request.session.may(Verb.READ_METADATA, name)
        ]
        return json_response({"models": found})

    async def _get(self, parameters: PathParameters, _: HttpRequest) -> HttpResponse:
        name = self._known(parameters)
        return json_response(_described(name, self._models.folders()[name]))

    async def _load(self, _: PathParameters, request: HttpRequest) -> HttpResponse:
        self._repository.check_control_allowed()
        try:
            wanted = msgspec.json.decode(request.body, type=_Load)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"load model: {error}") from error
        request.session.check(Verb.LOAD, wanted.model_name)
        target = header(request.headers, TARGET_MODEL) or wanted.model_name
        log.info("loading SageMaker's model %s (%s)", wanted.model_name, target)
        folder = await asyncio.to_thread(model_folder, Path(wanted.url))
        try:
            if self._repository.knows(wanted.model_name):
                raise AlreadyExists(f"model '{wanted.model_name}' is there already")
            self._models.add(wanted.model_name, folder)
        except AlreadyExists as error:
            return error_response(text_of(error), HTTPStatus.CONFLICT)
        try:
            await self._repository.load(wanted.model_name)
        except PenstockError as error:
            await self._forget(wanted.model_name)
            if isinstance(error, LoadFailed) and _OUT_OF_MEMORY.search(str(error)):
                return error_response(text_of(error), HTTPStatus.INSUFFICIENT_STORAGE)
            raise
        return HttpResponse()

    async def _unload(self, parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        self._repository.check_control_allowed()
        name = self._known(parameters)
        log.info("unloading SageMaker's model %s", header(request.headers, TARGET_MODEL) or name)
        await self._forget(name)
        return HttpResponse()

    async def _forget(self, name: str) -> None:
        # another request may have had the same idea
        with contextlib.suppress(InvalidRequest):
            await self._repository.unload(name)
        self._models.remove(name)
        self._repository.forget(name)

    def _known(self, parameters: PathParameters) -> str:
        name = parameters["model"]
        if name not in self._models.folders():
            raise NotFound(f"model '{name[:200]}' is not loaded")
        return name


def _described(name: str, folder: Path) -> dict[str, Any]:
    return {"modelName": name, "modelUrl": str(folder)}


def model_folder(url: Path) -> Path:
    """The folder of the model that was unpacked at `url`: that itself, or the only folder in it.

    Raises InvalidRequest where there is no model, more than one, or where none may be.
    """
    try:
        folder = url.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        # a NUL in it, or links in a circle
        raise InvalidRequest(f"url {str(url)[:200]!r} can't be looked up: {error}") from error
    if not url.is_absolute() or any(folder.is_relative_to(each) for each in FORBIDDEN):
        raise InvalidRequest(
            f"url {str(url)[:200]!r}: expected an absolute path outside of /dev, /proc and /sys"
        )
    try:
        if (folder / "config.pbtxt").exists() or (folder / "config.yaml").exists():
            return folder
        if versions_in(folder):
            return folder
        inside = [path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"]
    except OSError as error:
        raise InvalidRequest(f"url {str(url)[:200]!r}: {error.strerror}") from error
    if len(inside) != 1:
        names = ", ".join(sorted(path.name for path in inside)) or "none"
        raise InvalidRequest(
            f"url {str(url)[:200]!r}: expected a model, or one folder that holds one; folders: {names}"
        )
    return inside[0]
