"""All messages between processes. Small, frozen, one datagram each; tensors cross in slabs, never in here.

    supervisor ⇄ gateway    `SupervisorMessage` / `GatewayMessage`, over the control socket
    gateway    ⇄ worker     `WorkerCommand` / `WorkerEvent`, over one socket a worker

All sockets are Unix SOCK_SEQPACKET: a message is a datagram, end of file is seen, descriptors ride along.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from penstock.logs import LogSettings
from penstock.types import MetricChange, Parameter, Step, Uneven

CONTROL_FD: Final = "PENSTOCK_CONTROL_FD"
"""Environment variable: the gateway's descriptor of the control socket."""
SETTINGS_FILE: Final = "PENSTOCK_SETTINGS_FILE"
"""Environment variable: the file from which the gateway reads its settings."""


def sendable(text: str) -> str:
    """The text, with lone surrogates, which no message can carry, as escapes. Models' errors may have them."""
    return text.encode(errors="backslashreplace").decode()


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages."""


# ── gateway → supervisor ────────────────────────────────────────────────────────────────────────────────────────────


class StartWorker(Message, frozen=True):
    """Start a worker process. Answered by WorkerStarted (with one descriptor) or WorkerExited."""

    worker_id: int
    """Chosen by the gateway, never used twice, by later gateways neither."""
    name: str
    """For `ps` and logs: `digits/1 #0`."""
    environment: dict[str, str]
    """Added to the supervisor's own: thread counts, CUDA_VISIBLE_DEVICES."""


class StopWorker(Message, frozen=True):
    """End a worker: SIGTERM, then SIGKILL when `grace_s` is over. Answered by WorkerExited."""

    worker_id: int
    grace_s: float


class WorkerLoaded(Message, frozen=True):
    """The worker has its model. From now on the supervisor keeps it when the gateway crashes."""

    worker_id: int
    key: bytes
    """What was loaded, from which files, as which instance. The supervisor hands it on and never looks into it."""


UNLOADED: Final = "unloaded"
"""The reason of what is unavailable because nobody wants it."""


class ModelReport(Message, frozen=True):
    """One line of the banner and of the repository index."""

    name: str
    version: str
    state: str
    """READY, LOADING, UNLOADING or UNAVAILABLE."""
    reason: str
    backend: str
    instances: int
    devices: str = ""
    """Where these run: `cpu`, or such as `cuda:0, cuda:1`."""


class Report(Message, frozen=True):
    """What is served. Sent once when start-up is over, and at each change after it."""

    models: tuple[ModelReport, ...]
    extensions: tuple[str, ...]
    wanted: dict[str, bool]
    """Models that should be served, whether they can be or not: all but those that were unloaded on request. True: it
    was asked for by its name, and not only because another model needs it."""


class GatewayFailed(Message, frozen=True):
    """The gateway can't go on; the text is for a person. It ends by itself after this."""

    reason: str


class Pong(Message, frozen=True):
    """Answers a Ping: the event loop turns."""

    number: int


# ── supervisor → gateway ────────────────────────────────────────────────────────────────────────────────────────────


class WorkerStarted(Message, frozen=True):
    """The process runs. One descriptor rides along: the gateway's end of the worker's socket."""

    worker_id: int
    pid: int


class WorkerKept(Message, frozen=True):
    """A loaded worker that an earlier gateway left. One descriptor rides along, as with WorkerStarted."""

    worker_id: int
    pid: int
    name: str
    key: bytes
    """Of WorkerLoaded."""


class Inheritance(Message, frozen=True):
    """Sent once, first of all but WorkerKept: all workers that an earlier gateway left were named."""

    next_worker_id: int
    """Ids below it were used by earlier gateways."""
    wanted: dict[str, bool] | None
    """Of the last Report; None when there was none."""


class WorkerExited(Message, frozen=True):
    """The process ended, or could not be started."""

    worker_id: int
    status: int
    """Exit code; negative: the signal's number."""
    reason: str


class Ping(Message, frozen=True):
    """Answered by Pong, of the same number. Where a front asks everyone for a certificate, it is asked so whether the
    gateway lives."""

    number: int


class TlsState(Message, frozen=True):
    """What is spoken TLS with, for the metrics. Sent at the start and at each change after it."""

    certificate_expires_at: float
    """In Unix seconds."""
    client_ca_expires_at: float
    """Of the last CA that clients' certificates may be of; 0: clients show none."""
    rotations: int
    """How often something new was taken."""
    refused: int
    """… and how often it was not, because it was no good."""


class Drain(Message, frozen=True):
    """Turn not ready, and go on answering: the front stops taking connections by itself."""


class Shutdown(Message, frozen=True):
    """End workers and go. The portable front first answers what is under way; Envoy has done so by then."""


# ── gateway → worker ────────────────────────────────────────────────────────────────────────────────────────────────


class Load(Message, frozen=True):
    """Load the model. Answered by Ready or LoadRefused."""

    model_name: str
    version: int
    model_dir: str
    config_json: bytes
    instance_name: str
    device: str
    threads: int


class SetLogging(Message, frozen=True):
    """What to log, and where, from now on. Not answered."""

    settings: LogSettings


class AttachSlab(Message, frozen=True):
    """Map a slab. One descriptor rides along: the memfd."""

    slab: int


class DetachSlab(Message, frozen=True):
    """Unmap a slab: no batch will come in it any more. Not answered."""

    slab: int


class Reset(Message, frozen=True):
    """Forget all slabs: another gateway takes over. Answered by Ready, after the answers to all that came before."""

    number: int
    """Any but 0 and those of earlier gateways: tells the answer from what an earlier one asked for."""


class InputSlot(Message, frozen=True):
    """One input of a batch, the bytes of all its requests joined."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class RequestSlot(Message, frozen=True):
    """One request of a batch."""

    rows: int
    id: str
    parameters: dict[str, Parameter]
    outputs: tuple[str, ...]


class Execute(Message, frozen=True):
    """Run a batch whose inputs lie in a slab. Answered by Done or BatchFailed."""

    batch: int
    slab: int
    inputs: tuple[InputSlot, ...]
    requests: tuple[RequestSlot, ...]
    output_offset: int
    """Where outputs may begin. The worker grows the slab if they need more than there is."""


class ExecuteSequences(Execute, frozen=True):
    """Run a batch of a stateful model."""

    steps: tuple[Step, ...]
    """One a request, in order of their slots where slots are rows."""


class ExecuteUneven(Execute, frozen=True):
    """Run a batch of a model whose requests may be joined though their shapes differ."""

    uneven: Uneven


class Cancel(Message, frozen=True):
    """Nobody waits for the answer of a request that runs. Not answered: the batch is, as ever."""

    batch: int
    request: int
    """Its place in the batch."""


class Taken(Message, frozen=True):
    """The client of a decoupled model's request has taken so many responses more."""

    batch: int
    request: int
    responses: int
    nbytes: int


class CallAnswered(Message, frozen=True):
    """What became of a CallModel or ControlModel. Of a decoupled call there may be many, until `final`."""

    call: int
    outputs: tuple[ResponseTensor, ...]
    parameters: dict[str, Parameter]
    error: RequestError | None
    final: bool


# ── worker → gateway ────────────────────────────────────────────────────────────────────────────────────────────────


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


class OutputSlot(Message, frozen=True):
    """One output of `count` requests from `first` on, their bytes joined. Shapes differ only in the first dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """Of the joined array."""
    offset: int
    nbytes: int
    first: int
    count: int
    ends: tuple[int, ...]
    """BYTES only: where each request's bytes end, from `offset`."""


class RequestError(Message, frozen=True):
    """One request of a batch failed, its mates did not."""

    index: int
    reason: str
    kind: str = "ModelFailed"
    """The name of its class in `errors`, one of `gather.REQUEST_ERRORS`."""


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


class ModelMetrics(Message, frozen=True):
    """What became of the model's own metrics. Comes before the answer to the batch that changed them."""

    changes: tuple[MetricChange, ...]


class ResponseTensor(Message, frozen=True):
    """An output of a response, with its bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: memoryview


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


class BatchFailed(Message, frozen=True):
    """The whole batch failed; the model is still there."""

    batch: int
    reason: str


GatewayMessage = StartWorker | StopWorker | WorkerLoaded | Report | GatewayFailed | Pong
SupervisorMessage = (
    WorkerStarted | WorkerKept | Inheritance | WorkerExited | Ping | TlsState | Drain | Shutdown
)
WorkerCommand = (
    SetLogging
    | Load
    | Reset
    | AttachSlab
    | DetachSlab
    | Execute
    | ExecuteSequences
    | ExecuteUneven
    | Cancel
    | Taken
    | CallAnswered
)
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

MESSAGE_LIMIT_BYTES = 32 * 1024
"""Largest datagram. Some must fit into a socket's send buffer (208 KiB by default) at once; `channel` sends larger
messages in a memfd of their own."""

encode = msgspec.msgpack.Encoder().encode
decode_gateway_message = msgspec.msgpack.Decoder(GatewayMessage).decode
decode_supervisor_message = msgspec.msgpack.Decoder(SupervisorMessage).decode
decode_worker_command = msgspec.msgpack.Decoder(WorkerCommand).decode
decode_worker_event = msgspec.msgpack.Decoder(WorkerEvent).decode
