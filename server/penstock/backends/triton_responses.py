"""Responses of Triton's `triton_python_backend_utils`, and the senders that models send them by."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from threading import Condition
from typing import Any, Final

from penstock.backends.base import CLOSED, Line, Outputs, Stream
from penstock.backends.byte_arrays import is_text, to_byte_array
from penstock.backends.triton_objects import Tensor, TritonError, TritonModelException, error_of
from penstock.errors import ModelFailed, PenstockError
from penstock.types import Array, Parameter

COMPLETE_FINAL: Final = 1

SECOND_RESPONSE: Final = (
    "Unable to send response. Non-decoupled model cannot send more than one response."
)
NO_RESPONSE: Final = "the model returned None for this request, no InferenceResponse"


class InferenceResponse:
    """The answer to one request: output tensors, or an error."""

    __slots__ = ("_error", "_parameters", "_tensors")

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: TritonError | None = None,
        parameters: Mapping[str, Parameter] | None = None,
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

    def parameters(self) -> str:
        """As a JSON object."""
        return json.dumps(dict(self._parameters or {}))


class Answering:
    """Makes of a model's responses what the worker takes."""

    __slots__ = ("_byte_outputs", "_outputs")

    def __init__(self, outputs: Sequence[str], byte_outputs: Sequence[str]) -> None:
        self._outputs = frozenset(outputs)
        self._byte_outputs = tuple(byte_outputs)

    def __call__(
        self, response: InferenceResponse, requested: Collection[str]
    ) -> Outputs | PenstockError:
        """The outputs that were asked for, or the error."""
        error = response._error
        if error is not None:
            return error_of(error)
        wanted = requested or self._outputs
        try:
            outputs: dict[str, Array] = {
                tensor._name: tensor._array
                for tensor in response._tensors
                if tensor._name in wanted
            }
        except (AttributeError, TypeError):
            return ModelFailed("the model's InferenceResponse holds no list of pb_utils.Tensor")
        for name in self._byte_outputs:
            array = outputs.get(name)
            if array is not None and is_text(array):
                outputs[name] = to_byte_array(array)
        return outputs


def checked_parameters(response: InferenceResponse) -> Mapping[str, Parameter]:
    """What the model gave beside outputs. Raises ModelFailed for what no protocol can carry."""
    given: Any = response._parameters
    if not given:
        return {}
    if not isinstance(given, Mapping):
        raise ModelFailed(
            f"the response's parameters are a {type(given).__name__}, expected a dict"
        )
    for name, value in given.items():
        if not isinstance(name, str) or type(value) not in (bool, int, float, str):
            raise ModelFailed(
                f"the response's parameter {name!r} is a {type(value).__name__}, expected names that are str,"
                " and values that are bool, int, float or str"
            )
        if type(value) is int and not -(2**63) <= value < 2**64:
            raise ModelFailed(
                f"the response's parameter {name!r} is {value}, which has over 64 bits"
            )
        _check_text(name, value)
    return given


def _check_text(name: str, value: Parameter) -> None:
    try:
        name.encode()
        str(value).encode()
    except UnicodeEncodeError as error:
        raise ModelFailed(
            f"the response's parameter {name!r} is no Unicode text: {error}"
        ) from error


def _check_arguments(response: object, flags: int) -> None:
    """Raises TritonModelException, in Triton's words."""
    if flags not in (0, COMPLETE_FINAL):
        raise TritonModelException("Unable to send response. Unsupported flag provided.")
    if flags == 0 and response is None:
        raise TritonModelException(
            "Inference Response object must be provided when the response flags is set to zero."
        )
    if response is not None and not isinstance(response, InferenceResponse):
        raise TypeError(f"send needs an InferenceResponse, got {type(response).__name__}")


class StreamSender:
    """The response sender of a decoupled model's request."""

    __slots__ = ("_answering", "_requested", "_stream")

    def __init__(self, stream: Stream, answering: Answering, requested: Collection[str]) -> None:
        self._stream = stream
        self._answering = answering
        self._requested = requested

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Send a response. Waits while the client has too many to take."""
        _check_arguments(response, flags)
        outputs: Outputs | PenstockError | None = None
        parameters: Mapping[str, Parameter] = {}
        if response is not None:
            try:
                parameters = checked_parameters(response)
                outputs = self._answering(response, self._requested)
            except ModelFailed as error:
                outputs = error
        try:
            self._stream.send(outputs, parameters, final=flags == COMPLETE_FINAL)
        except PenstockError as error:
            raise TritonModelException(str(error)) from error

    def is_cancelled(self) -> bool:
        """Nobody waits for more responses."""
        return self._stream.is_cancelled()


class OnlyResponse:
    """Where a model that is not decoupled sends a request's one response to."""

    __slots__ = ("_changed", "_closed", "_response")

    def __init__(self) -> None:
        self._changed = Condition()
        self._closed = False
        self._response: InferenceResponse | None = None

    @property
    def used(self) -> bool:
        """The model sent something."""
        return self._response is not None

    def put(self, response: InferenceResponse | None, *, final: bool) -> None:
        """Raises TritonModelException, in Triton's words."""
        with self._changed:
            if response is not None and self._response is not None:
                raise TritonModelException(SECOND_RESPONSE)
            if response is None and self._response is None:
                raise TritonModelException(
                    "Unable to send response. Non-decoupled model cannot send complete final before"
                    " sending a response."
                )
            if self._closed:
                raise TritonModelException(CLOSED)
            self._response = self._response or response
            self._closed = final
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self) -> InferenceResponse | None:
        """The response, once its sender is closed or dropped; None: there was none."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed)
            return self._response


class OnlySender:
    """The response sender of a request to a model that is not decoupled."""

    __slots__ = ("__weakref__", "_line", "_place")

    def __init__(self, place: OnlyResponse, line: Line | None) -> None:
        self._place = place
        self._line = line

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Send the response."""
        _check_arguments(response, flags)
        self._place.put(response, final=flags == COMPLETE_FINAL)

    def is_cancelled(self) -> bool:
        """Nobody waits for the response."""
        return self._line is not None and self._line.is_cancelled()

    def __del__(self) -> None:
        self._place.close()
