"""Requests of Triton's `triton_python_backend_utils`, by the names and calls that models use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final
from weakref import ref

from penstock.backends.base import (
    Batch,
    ModelAnswer,
    OpenCall,
    OtherModels,
    RequestInfo,
    line_of,
    stream_of,
)
from penstock.backends.ragged import request_inputs
from penstock.backends.readings import begin, note
from penstock.backends.triton_calls import ResponseIterator, ask
from penstock.backends.triton_objects import Tensor, TritonModelException, triton_error
from penstock.backends.triton_responses import (
    Answering,
    InferenceResponse,
    OnlyResponse,
    OnlySender,
    StreamSender,
)
from penstock.types import Parameter

RESERVED_PARAMETERS: Final = frozenset(
    (
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "priority",
        "timeout",
        "binary_data_output",
        "triton_enable_empty_final_response",
    )
)
"""What a request's parameters say to the server. A model has calls for them, or need not know."""

FLAG_SEQUENCE_START: Final = 1
FLAG_SEQUENCE_END: Final = 2
RELEASE_ALL: Final = 1

MEMORY_CPU: Final = 0


class ModelIdentity:
    """What all requests to one model have in common."""

    __slots__ = ("answering", "decoupled", "name", "outputs", "request_class", "version")

    def __init__(
        self,
        name: str,
        version: int,
        outputs: tuple[str, ...],
        answering: Answering | None = None,
        request_class: type[InferenceRequest] | None = None,
        *,
        decoupled: bool = False,
    ) -> None:
        """`answering` None: it is another model, to which one that runs sends requests."""
        self.name = name
        self.version = version
        self.outputs = outputs
        self.answering = answering
        self.request_class = request_class or InferenceRequest
        self.decoupled = decoupled


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
    """One request: as `execute` gets it, or one that a model makes to send it to another model."""

    __slots__ = ("_info", "_model", "_only", "_place", "_tensors")

    _others: ClassVar[OtherModels | None] = None
    """Of the worker: `bound_to` makes the class that has them."""

    _place: tuple[int, int] | None
    """Its batch, and its place there; None: a model has made it."""

    _info: RequestInfo
    _model: ModelIdentity
    _only: tuple[OnlyResponse, ref[OnlySender]] | None
    """Once a model that is not decoupled has asked for the sender."""
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
        self._only = None
        self._place = None
        self._tensors = list(inputs)

    def inputs(self) -> list[Tensor]:
        self._note_reading()
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
        """Nobody waits for the answer any more."""
        line = line_of(self._info)
        return line is not None and line.is_cancelled()

    def preferred_memory(self) -> PreferredMemory:
        return PreferredMemory()

    def trace(self) -> InferenceTrace:
        return InferenceTrace()

    def set_release_flags(self, flags: int) -> None:
        """Only TRITONSERVER_REQUEST_RELEASE_ALL, which is what becomes of requests anyway."""
        if flags != RELEASE_ALL:
            raise TritonModelException(
                "Penstock does not reschedule requests: set_release_flags takes"
                " TRITONSERVER_REQUEST_RELEASE_ALL only"
            )

    def get_response_sender(self) -> StreamSender | OnlySender:
        """Sends the request's responses: any number for a decoupled model, which has no other way; else the one that
        `execute` does not return then."""
        answering = self._model.answering
        if answering is None:
            raise TritonModelException(
                "only requests that execute was given have a response sender"
            )
        if self._model.decoupled:
            return StreamSender(stream_of(self._info), answering, self._info.outputs)
        sender = None if self._only is None else self._only[1]()
        if sender is None:
            place = OnlyResponse() if self._only is None else self._only[0]
            sender = OnlySender(place, line_of(self._info))
            self._only = place, ref(sender)
        return sender

    def exec(self, decoupled: bool = False) -> InferenceResponse | ResponseIterator:
        """Send it to its model, and wait for the answer; `decoupled`: for the first of any number."""
        call = self._ask(decoupled)
        return ResponseIterator(call, _response_of) if decoupled else _response_of(call.next())

    def async_exec(
        self, decoupled: bool = False
    ) -> asyncio.Future[InferenceResponse | ResponseIterator]:
        """As `exec`, in an event loop. It is sent now, and not when it is awaited."""
        return asyncio.ensure_future(_await_answer(self._ask(decoupled), decoupled))

    def _ask(self, decoupled: bool) -> OpenCall:
        return ask(
            self._others,
            self._model.name,
            self._model.version,
            self._tensors,
            self._info.outputs,
            self._info.id,
            {k: v for k, v in self._info.parameters.items() if v or k not in RESERVED_PARAMETERS},
            decoupled=decoupled,
        )

    def _note_reading(self) -> None:
        if self._place is not None:
            note(*self._place)


def bound_to(others: OtherModels | None) -> type[InferenceRequest]:
    """A class of requests that can be sent to them."""
    return type("InferenceRequest", (InferenceRequest,), {"__slots__": (), "_others": others})


async def _await_answer(call: OpenCall, decoupled: bool) -> InferenceResponse | ResponseIterator:
    if decoupled:
        return ResponseIterator(call, _response_of)
    try:
        return _response_of(await call.next_async())
    except asyncio.CancelledError:
        call.cancel()
        raise


def _response_of(answer: ModelAnswer) -> InferenceResponse:
    if answer.error is not None:
        return InferenceResponse((), triton_error(answer.error), answer.parameters)
    tensors = [Tensor(name, array) for name, array in answer.outputs.items()]
    return InferenceResponse(tensors, None, answer.parameters)


def requests_of(batch: Batch, model: ModelIdentity) -> list[InferenceRequest]:
    """The requests of a batch. Their arrays are views of the batch's."""
    begin(batch.number, len(batch.requests))
    if batch.uneven is not None:
        return [
            _request(info, model, (batch.number, place), [Tensor(*t) for t in own.items()])
            for place, (info, own) in enumerate(
                zip(batch.requests, request_inputs(batch), strict=True)
            )
        ]
    named = list(batch.inputs.items())
    single = len(batch.requests) == 1
    requests = []
    start = 0
    for place, info in enumerate(batch.requests):
        stop = start + info.rows
        tensors = [Tensor(name, array if single else array[start:stop]) for name, array in named]
        requests.append(_request(info, model, (batch.number, place), tensors))
        start = stop
    return requests


def _request(
    info: RequestInfo, model: ModelIdentity, place: tuple[int, int], tensors: list[Tensor]
) -> InferenceRequest:
    # Past the constructor, whose defaults are for models: this runs for every request.
    request = model.request_class.__new__(model.request_class)
    request._info = info
    request._model = model
    request._place = place
    request._only = None
    request._tensors = tensors
    return request
