"""The routes and RPCs of the shared-memory extensions: status, register, unregister."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec
from google.protobuf.message import Message
from msgspec import UNSET, UnsetType

from penstock.access.rules import of
from penstock.access.session import AnySession
from penstock.errors import InvalidRequest, NotFound
from penstock.gateway import descriptions as described
from penstock.gateway.client_memory import ClientMemory
from penstock.gateway.http_types import HttpRequest, HttpResponse, json_response
from penstock.gateway.route_table import PathParameters, Route
from penstock.gateway.rpc import Rpc
from penstock.protobuf import message_class
from penstock.verbs import Verb
from penstock.workers.client_regions import Region

T = TypeVar("T")

MEMORY: Final = of(Verb.INFER)
"""Who may run models may say where their tensors lie."""


class _Registration(msgspec.Struct, frozen=True):
    key: str | UnsetType = UNSET
    byte_size: int | UnsetType = UNSET
    offset: int | None = None


_registration: Final = msgspec.json.Decoder(_Registration).decode


class SystemMemoryApi:
    """`/v2/systemsharedmemory/…`, and the `SystemSharedMemory…` RPCs."""

    def __init__(self, memory: ClientMemory) -> None:
        self._memory = memory

    async def status(self, parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        """`…/status`."""
        regions = self._memory.status(_region(parameters), request.session.tenant)
        return json_response([_described(region) for region in regions])

    async def register(self, parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        """`…/register`."""
        self._memory.check_allowed()
        given = _parsed(request.body)
        self._memory.register(
            _region(parameters),
            _given("key", given.key),
            given.offset or 0,
            _given("byte_size", given.byte_size),
            request.session.tenant,
        )
        return HttpResponse()

    async def unregister(self, parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        """`…/unregister`."""
        self._memory.unregister(_region(parameters), request.session.tenant)
        return HttpResponse()

    def rpcs(self) -> tuple[Rpc, ...]:
        """The RPCs."""
        return (
            ("SystemSharedMemoryStatus", "SystemSharedMemoryStatusRequest", MEMORY, self._status),
            (
                "SystemSharedMemoryRegister",
                "SystemSharedMemoryRegisterRequest",
                MEMORY,
                self._register,
            ),
            (
                "SystemSharedMemoryUnregister",
                "SystemSharedMemoryUnregisterRequest",
                MEMORY,
                self._unregister,
            ),
        )

    async def _status(self, request: Any, session: AnySession) -> Message:
        response: Any = _message("SystemSharedMemoryStatusResponse")
        for region in self._memory.status(request.name, session.tenant):
            shown = response.regions[region.name]
            for field, value in _described(region).items():
                setattr(shown, field, value)
        return response  # type: ignore[no-any-return]

    async def _register(self, request: Any, session: AnySession) -> Message:
        given = request.name, request.key, request.offset, request.byte_size
        self._memory.register(*given, session.tenant)
        return _message("SystemSharedMemoryRegisterResponse")

    async def _unregister(self, request: Any, session: AnySession) -> Message:
        self._memory.unregister(request.name, session.tenant)
        return _message("SystemSharedMemoryUnregisterResponse")


class CudaMemoryApi:
    """`/v2/cudasharedmemory/…`, and the `CudaSharedMemory…` RPCs, as of a Triton that is built without GPUs: no region
    can be registered, so there is none."""

    def __init__(self, memory: ClientMemory) -> None:
        self._memory = memory

    async def status(self, parameters: PathParameters, _: HttpRequest) -> HttpResponse:
        """`…/status`."""
        self._check(_region(parameters))
        return json_response([])

    async def register(self, parameters: PathParameters, _: HttpRequest) -> HttpResponse:
        """`…/register`."""
        raise self._refusal(_region(parameters))

    async def unregister(self, _: PathParameters, __: HttpRequest) -> HttpResponse:
        """`…/unregister`."""
        self._memory.check_allowed()
        return HttpResponse()

    def rpcs(self) -> tuple[Rpc, ...]:
        """The RPCs."""
        return (
            ("CudaSharedMemoryStatus", "CudaSharedMemoryStatusRequest", MEMORY, self._status),
            ("CudaSharedMemoryRegister", "CudaSharedMemoryRegisterRequest", MEMORY, self._register),
            (
                "CudaSharedMemoryUnregister",
                "CudaSharedMemoryUnregisterRequest",
                MEMORY,
                self._unregister,
            ),
        )

    async def _status(self, request: Any, _: AnySession) -> Message:
        self._check(request.name)
        return _message("CudaSharedMemoryStatusResponse")

    async def _register(self, request: Any, _: AnySession) -> Message:
        raise self._refusal(request.name)

    async def _unregister(self, _: Any, __: AnySession) -> Message:
        self._memory.check_allowed()
        return _message("CudaSharedMemoryUnregisterResponse")

    def _check(self, name: str) -> None:
        self._memory.check_allowed()
        if name:
            raise NotFound(f"Unable to find cuda shared memory region: '{name}'")

    def _refusal(self, name: str) -> InvalidRequest:
        self._memory.check_allowed()
        return InvalidRequest(
            f"failed to register CUDA shared memory region: '{name}', GPUs not supported"
        )


def memory_routes(prefix: str, api: SystemMemoryApi | CudaMemoryApi) -> Iterator[Route]:
    """`/v2/systemsharedmemory/status`, `/v2/systemsharedmemory/region/NAME/status` and so on."""
    of_region = f"{prefix}/region/{{region}}"
    for path in (prefix, of_region):
        yield Route("GET", f"{path}/status", api.status, described.REGION_STATUS)
        yield Route("POST", f"{path}/unregister", api.unregister, described.UNREGISTER)
    yield Route("POST", f"{prefix}/register", _register_nameless, described.REGISTER_NAMELESS)
    yield Route("POST", f"{of_region}/register", api.register, described.REGISTER)


async def _register_nameless(_: PathParameters, __: HttpRequest) -> HttpResponse:
    raise InvalidRequest("'region name' is necessary to register shared memory region")


def _region(parameters: PathParameters) -> str:
    """Empty: all."""
    return parameters.get("region", "")


def _described(region: Region) -> dict[str, Any]:
    return {
        "name": region.name,
        "key": region.key,
        "offset": region.offset,
        "byte_size": region.byte_size,
    }


def _parsed(body: bytes) -> _Registration:
    try:
        return _registration(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"shared memory register request: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"failed to parse the request JSON buffer: {error}") from error


def _given(field: str, value: T | UnsetType) -> T:
    if isinstance(value, UnsetType):
        raise InvalidRequest(f"Shared memory register request has no '{field}' field")
    return value


def _message(name: str) -> Message:
    return message_class(f"inference.{name}")()
