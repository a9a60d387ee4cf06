"""Requests and responses of Triton's `triton_python_backend_utils`, by the names and calls that models use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from penstock.backends.base import Batch, RequestInfo
from penstock.backends.ragged import request_inputs
from penstock.backends.triton_objects import Tensor, TritonError, TritonModelException
from penstock.types import Parameter

RESERVED_PARAMETERS: Final = frozenset(
    ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output")
)
"""What a request's parameters say to the server. A model has calls for them, or need not know."""

FLAG_SEQUENCE_START: Final = 1
FLAG_SEQUENCE_END: Final = 2

MEMORY_CPU: Final = 0


class ModelIdentity:
    """What all requests to one model have in common."""

    __slots__ = ("name", "outputs", "version")

    def __init__(self, name: str, version: int, outputs: tuple[str, ...]) -> None:
        self.name = name
        self.version = version
        self.outputs = outputs


class PreferredMemory:
    """Where a model wants the outputs of a nested request."""

    __slots__ = ("device_id", "memory_type")

    def __init__(
        self, preferred_memory_type: int = MEMORY_CPU, preferred_device_id: int = 0
    ) -> None:
        self.memory_type = preferred_memory_type
        self.device_id = preferred_device_id


class InferenceTrace:
    """A request's trace, to be handed on to nested requests."""

    __slots__ = ()

    def get_context(self) -> str | None:
        return None


class InferenceRequest:
    """One request, as `execute` gets it."""

    __slots__ = ("_info", "_model", "_tensors")

    _info: RequestInfo
    _model: ModelIdentity
    _tensors: list[Tensor]

    def __init__(
        self,
        request_id: str = "",
        correlation_id: int | str = 0,
        requested_output_names: Sequence[str] = (),
        model_name: str = "",
        inputs: Sequence[Tensor] = (),
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,
        trace: InferenceTrace | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> None:
        known: dict[str, Parameter] = {"sequence_id": correlation_id, "timeout": timeout}
        known["sequence_start"] = bool(flags & FLAG_SEQUENCE_START)
        known["sequence_end"] = bool(flags & FLAG_SEQUENCE_END)
        names = tuple(requested_output_names)
        self._info = RequestInfo(1, request_id, {**(parameters or {}), **known}, names)
        self._model = ModelIdentity(model_name, model_version, names)
        self._tensors = list(inputs)

    def inputs(self) -> list[Tensor]:
        return self._tensors

    def request_id(self) -> str:
        return self._info.id

    def requested_output_names(self) -> list[str]:
        return list(self._info.outputs or self._model.outputs)

    def model_name(self) -> str:
        return self._model.name

    def model_version(self) -> int:
        return self._model.version

    def parameters(self) -> str:
        """The client's own parameters, as a JSON object."""
        given = self._info.parameters
        return json.dumps({k: v for k, v in given.items() if k not in RESERVED_PARAMETERS})

    def correlation_id(self) -> Any:
        return self._info.parameters.get("sequence_id", 0)

    def flags(self) -> int:
        parameters = self._info.parameters
        start = FLAG_SEQUENCE_START if parameters.get("sequence_start") else 0
        return start | (FLAG_SEQUENCE_END if parameters.get("sequence_end") else 0)

    def timeout(self) -> int:
        """In microseconds; 0 where the client gave none."""
        return int(self._info.parameters.get("timeout", 0))

    def is_cancelled(self) -> bool:
        """False: cancelled requests leave before they reach a model."""
        return False

    def preferred_memory(self) -> PreferredMemory:
        return PreferredMemory()

    def trace(self) -> InferenceTrace:
        return InferenceTrace()

    def set_release_flags(self, flags: int) -> NoReturn:
        raise TritonModelException("Penstock does not reschedule requests: set_release_flags")

    def get_response_sender(self) -> NoReturn:
        raise TritonModelException(
            "Penstock does not serve decoupled models: execute must return one InferenceResponse"
            " a request, get_response_sender() is not available"
        )

    def exec(self, decoupled: bool = False) -> NoReturn:
        raise TritonModelException(
            f"Penstock does not run models from within models: {self._model.name!r} was asked for"
        )

    def async_exec(self, decoupled: bool = False) -> NoReturn:
        self.exec(decoupled)


class InferenceResponse:
    """The answer to one request: output tensors, or an error."""

    __slots__ = ("_error", "_parameters", "_tensors")

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: TritonError | None = None,
        parameters: Any = None,
    ) -> None:
        self._tensors = output_tensors
        self._error = error
        self._parameters = parameters

    def output_tensors(self) -> Sequence[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error

    def parameters(self) -> Any:
        return self._parameters


def requests_of(batch: Batch, model: ModelIdentity) -> list[InferenceRequest]:
    """The requests of a batch. Their arrays are views of the batch's."""
    if batch.uneven is not None:
        pairs = zip(batch.requests, request_inputs(batch), strict=True)
        return [_request(i, model, [Tensor(*t) for t in own.items()]) for i, own in pairs]
    named = list(batch.inputs.items())
    single = len(batch.requests) == 1
    requests = []
    start = 0
    for info in batch.requests:
        stop = start + info.rows
        tensors = [Tensor(name, array if single else array[start:stop]) for name, array in named]
        requests.append(_request(info, model, tensors))
        start = stop
    return requests


def _request(info: RequestInfo, model: ModelIdentity, tensors: list[Tensor]) -> InferenceRequest:
    # Past the constructor, whose defaults are for models: this runs for every request.
    request = InferenceRequest.__new__(InferenceRequest)
    request._info = info
    request._model = model
    request._tensors = tensors
    return request
