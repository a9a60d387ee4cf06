"""What the gateway says to a worker."""

from __future__ import annotations

import msgspec

from penstock.logs import LogSettings
from penstock.types import Parameter, Step, Uneven
from penstock.workers.message import Message
from penstock.workers.message_parts import InputSlot, RequestError, RequestSlot, ResponseTensor


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

decode_worker_command = msgspec.msgpack.Decoder(WorkerCommand).decode
