"""What a worker says to the gateway."""

from __future__ import annotations

from typing import Literal

import msgspec

from penstock.types import MetricChange, Parameter
from penstock.workers.message import Message
from penstock.workers.message_parts import OutputSlot, RequestError, ResponseTensor


class Ready(Message, frozen=True):
    """The model is loaded and warm."""

    config_json: bytes
    """The configuration with what the model's files filled in."""
    load_us: int
    number: int
    """Of the Reset that it answers; 0: of Load."""
    fallback: str = ""
    """Why the model does not run as it was asked for, as its backend says it; empty: it does."""


class LoadRefused(Message, frozen=True):
    """The model can't be loaded; the worker ends after this."""

    reason: str


class Done(Message, frozen=True):
    """A batch's answer. Times are of the worker's own clock, in nanoseconds."""

    batch: int
    outputs: tuple[OutputSlot, ...]
    errors: tuple[RequestError, ...]
    slab_bytes: int
    """The slab's size now: the gateway maps it anew when it has grown."""
    input_ns: int
    infer_ns: int
    output_ns: int


class DoneWithParameters(Done, frozen=True):
    """A batch's answer, and what the model gave its requests beside outputs."""

    parameters: tuple[tuple[int, dict[str, Parameter]], ...]
    """By the request's place in the batch."""


class BatchFailed(Message, frozen=True):
    """The whole batch failed; the model is still there."""

    batch: int
    reason: str


class ModelMetrics(Message, frozen=True):
    """What became of the model's own metrics. Comes before the answer to the batch that changed them."""

    changes: tuple[MetricChange, ...]


class Response(Message, frozen=True):
    """One response to one request of a decoupled model's batch. Times are from the response before it on."""

    batch: int
    request: int
    """Its place in the batch."""
    outputs: tuple[ResponseTensor, ...] | None
    """None: there is an error in their place, or only `final` to say."""
    parameters: dict[str, Parameter]
    error: RequestError | None
    final: bool
    """No more will come. Where it is an error, Taken answers it: another thread of the model may wait to send."""
    infer_ns: int
    output_ns: int


class Executed(Message, frozen=True):
    """`execute` of a decoupled model is over, and the slab is free. Responses may still come for as long as the batch
    has a request without its final one."""

    batch: int
    input_ns: int
    infer_ns: int


class CallModel(Message, frozen=True):
    """A model asks another one. Answered by CallAnswered."""

    call: int
    """Chosen by the worker."""
    batch: int
    """Which one it is for, and which of its requests, by place; -1: none that is under way."""
    requests: tuple[int, ...]
    model: str
    version: str
    id: str
    inputs: tuple[ResponseTensor, ...]
    outputs: tuple[str, ...]
    parameters: dict[str, Parameter]
    decoupled: bool
    """Any number of responses is fine."""


class CallTaken(Message, frozen=True):
    """The model has taken one response more of a decoupled call."""

    call: int


class CancelCall(Message, frozen=True):
    """The model needs no answer to a CallModel any more. It gets one all the same."""

    call: int


class ControlModel(Message, frozen=True):
    """A model asks for something to be done with another one. Answered by CallAnswered."""

    call: int
    action: Literal["ready", "load", "unload"]
    """`ready`: whether it is; no error means that it is."""
    model: str
    version: str
    config: str
    files: dict[str, bytes]
    unload_dependents: bool


WorkerEvent = (
    Ready
    | LoadRefused
    | Done
    | DoneWithParameters
    | BatchFailed
    | ModelMetrics
    | Response
    | Executed
    | CallModel
    | CallTaken
    | CancelCall
    | ControlModel
)

decode_worker_event = msgspec.msgpack.Decoder(WorkerEvent).decode
