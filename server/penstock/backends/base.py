"""The contract between a worker and the backend that runs its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, cast

import msgspec

from penstock.errors import PenstockError
from penstock.model_config import ConfigDict
from penstock.types import Array, Parameter, Step, Uneven

Outputs = Mapping[str, Array]
"""Output name → array."""

Answers = Outputs | Sequence[Outputs | PenstockError]
"""The outputs of a whole batch, or one answer a request, in order: its outputs or its error."""

CLOSED: Final = "Unable to send response. Response sender has been closed."
"""What is told after a request's final response, in Triton's words."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What a model asks another one."""

    model: str
    version: str
    """Empty: the highest that is ready."""
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...] = ()
    """Empty: all."""
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    decoupled: bool = False
    """Any number of responses is fine."""
    batch: int = -1
    """For which batch of this worker it is; -1: for none that runs."""
    requests: tuple[int, ...] = ()
    """For which requests of the batch, by place: it takes over their tenant, deadline and priority."""


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """A response of another model."""

    outputs: Mapping[str, Array]
    parameters: Mapping[str, Parameter]
    error: PenstockError | None
    """In place of outputs."""
    final: bool


class OpenCall(Protocol):
    """A request to another model. To be used by one thread or task."""

    def next(self) -> ModelAnswer:
        """Wait for the next response. Not to be called after the final one."""
        ...

    async def next_async(self) -> ModelAnswer:
        """As `next`, in an event loop."""
        ...

    def cancel(self) -> None:
        """No response is needed any more. There is a final one all the same."""
        ...


class OtherModels(Protocol):
    """All models of the server, from within one of them. Usable from any thread."""

    def ask(self, request: ModelRequest) -> OpenCall:
        """Send a request. What is wrong with it is told by its answer."""
        ...

    def check_ready(self, model: str, version: str) -> None:
        """Raises PenstockError where the model can't take requests now."""
        ...

    def load(self, model: str, config: str, files: Mapping[str, bytes]) -> None:
        """Load a model, as the model repository extension does. Raises PenstockError."""
        ...

    def unload(self, model: str, *, unload_dependents: bool) -> None:
        """Unload a model. Raises PenstockError."""
        ...


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What a worker is told to load."""

    model_name: str
    version: int
    model_dir: Path
    """The model's folder; the version's files are in `model_dir / str(version)`."""
    config: ConfigDict
    """Triton's ModelConfig as JSON, maybe with inputs and outputs still to be filled in."""
    instance_name: str
    device: str
    """`cpu`, or `cuda:N`, where N is the GPU's place among those of the server, as configurations say it: nvidia-smi's
    number, unless CUDA_VISIBLE_DEVICES leaves some out. The worker sees that GPU alone: CUDA and torch call it `cuda:0`
    there."""
    threads: int
    """Compute threads this instance may use."""
    others: OtherModels | None = None
    """The other models of the server; None: they can't be reached."""
    hidden: frozenset[str] = frozenset()
    """Inputs and outputs in `config` that clients don't see, since the server makes and takes them."""

    @property
    def version_dir(self) -> Path:
        """The folder of this version's files."""
        return self.model_dir / str(self.version)


class RequestInfo(msgspec.Struct, frozen=True):
    """One request of a batch. A Struct, for one is made for every request."""

    rows: int
    """Its share of the batch dimension; 1 where the model doesn't batch."""
    id: str = ""
    parameters: Mapping[str, Parameter] = {}
    outputs: tuple[str, ...] = ()
    """Names of the outputs asked for; empty: all."""


class Line(Protocol):
    """What a model can ask and say of one of its requests while it runs. Any thread may."""

    parameters: Mapping[str, Parameter]
    """Of the response, beside its outputs: the model's to set, where its requests have one response each."""

    def is_cancelled(self) -> bool:
        """Nobody waits for the answer any more."""
        ...


class Stream(Line, Protocol):
    """The responses of a decoupled model's request. One that is dropped before its final response ends in an error."""

    def send(
        self,
        outputs: Outputs | PenstockError | None,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        final: bool = False,
    ) -> None:
        """Send a response, or only that there are no more. Waits while the client has too many to take.

        What is wrong with outputs is the response then. Raises ModelFailed after the final one, Unavailable when the
        server is gone.
        """
        ...

    def fail(self, error: PenstockError) -> None:
        """As the final response, if there was none; never waits."""
        ...


class LiveRequest(RequestInfo, frozen=True, kw_only=True, gc=False):
    """A request of a model that is `live`. Without the garbage collector, for no line refers to its request."""

    line: Line
    """A Stream where the model is decoupled."""


def line_of(request: RequestInfo) -> Line | None:
    """Its line; None: it has none."""
    return request.line if isinstance(request, LiveRequest) else None


def stream_of(request: RequestInfo) -> Stream:
    """The stream of a decoupled model's request."""
    assert isinstance(request, LiveRequest), "decoupled models are live"
    return cast(Stream, request.line)


@dataclass(frozen=True, slots=True)
class Batch:
    """The inputs of some requests, joined along the first dimension (but for `uneven`).

    The arrays are views of shared memory (BYTES: object arrays of `bytes`), valid until `execute` returns. Those of a
    decoupled model are its own, and stay valid.
    Where the model does not batch there is exactly one request, and the arrays are its own.
    """

    inputs: Mapping[str, Array]
    requests: Sequence[RequestInfo]
    steps: Sequence[Step] | None = None
    """Of stateful models: each request's place in its sequence."""
    uneven: Uneven | None = None
    """Set where requests are joined though their shapes differ: ragged inputs have one dimension, all elements."""
    number: int = -1
    """That the worker has given it."""
    repeatable: bool = True
    """Where running the batch fails, its requests may be run again. False: the model may have state of its own."""

    @property
    def rows(self) -> int:
        """Of all its requests."""
        return sum([request.rows for request in self.requests])


class LoadedModel(Protocol):
    """A model that is ready to run, in one worker, called by one thread.

    Where it has an attribute `live` that is true, its requests are LiveRequests. Where it has an attribute `fallback`
    that is not empty, the model does not run as it was asked for, and that is the reason, for a person. The `platform`
    of its `config` then names what really runs."""

    @property
    def config(self) -> ConfigDict:
        """The configuration with what the model's files could fill in (inputs, outputs, max_batch_size)."""
        ...

    def execute(self, batch: Batch) -> Answers:
        """Run the batch. The first dimension of a whole batch's outputs is the sum of the requests' rows. Raises
        anything when the whole batch failed.

        A decoupled model answers over the requests' streams, and returns an empty sequence.
        """
        ...

    def close(self) -> None:
        """Give back what the model holds. Called once, after the last `execute`."""
        ...


class Backend(Protocol):
    """Loads models of one kind. A backend is a module-level function or class instance named `load`."""

    def __call__(self, spec: LoadSpec) -> LoadedModel:
        """Load the model. Raises LoadFailed with a reason for a person; other exceptions are told with their type."""
        ...
