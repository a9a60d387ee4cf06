"""One request that a model or an ensemble has sent to another model, on its caller's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import msgspec

from penstock.errors import PenstockError
from penstock.types import OutputTensor, Parameter
from penstock.workers.request import (
    Answer,
    PendingRequest,
    Releasable,
    RequestTrace,
    Timed,
)

NO_PARAMETERS: Final[Mapping[str, Parameter]] = {}
"""A dict, for it is sent to workers."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request takes over from its caller's."""

    tenant: str = "default"
    deadline_us: float = inf
    """On the monotonic clock."""
    deadline_is_clients: bool = True
    depth: int = 1
    trace: RequestTrace | None = None
    """The request's own will be part of it."""
    holder: object = None
    """The pool whose instance waits for the answer; None: no instance does."""


def terms_of(parent: PendingRequest) -> Terms:
    """The terms of what an ensemble sends to answer the parent. Its priority is one of its parameters."""
    caller = parent.caller
    depth, holder = (1, None) if caller is None else (caller.depth + 1, caller.holder)
    deadline = parent.ends_us, parent.deadline_is_clients
    return Terms(parent.tenant, *deadline, depth, parent.trace, holder)


class Times(msgspec.Struct):
    """How long executions took, in nanoseconds."""

    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    def add(self, other: Timed) -> None:
        """Count another one too."""
        self.input_ns += other.input_ns
        self.infer_ns += other.infer_ns
        self.output_ns += other.output_ns


class Tensors:
    """A nested request's outputs. They are valid until `release`, which is due exactly once."""

    __slots__ = ("_lease", "outputs", "parameters", "rows", "times")

    def __init__(
        self,
        outputs: Sequence[OutputTensor],
        rows: int,
        times: Timed,
        lease: Releasable | None,
        parameters: Mapping[str, Parameter] = NO_PARAMETERS,
    ) -> None:
        """`rows`: of the batch dimension; 0 where the model has none. `parameters`: of the response, by the model."""
        self.outputs = outputs
        self.parameters = parameters
        self.rows = rows
        self.times = times
        self._lease = lease

    def release(self) -> None:
        """Let the memory be used for something else."""
        if self._lease is not None:
            self._lease.release()


OnAnswer = Callable[[Tensors | PenstockError], None]
"""Gets a nested request's one answer, on the event loop; must not raise."""


class NestedCall:
    """A nested request under way."""

    __slots__ = (
        "_ended",
        "_lease",
        "_on_answer",
        "_outputs",
        "_parameters",
        "_times",
        "depth",
        "holder",
        "request",
        "rows",
    )

    request: PendingRequest | None
    """None once it is answered: the two know each other, and the last outputs should not wait for the collector."""

    def __init__(
        self, on_answer: OnAnswer, rows: int, terms: Terms, ended: Callable[[], None]
    ) -> None:
        """`ended` is called once, before the answer is handed on."""
        self._on_answer = on_answer
        self._ended = ended
        self.rows = rows
        self.depth = terms.depth
        self.holder = terms.holder
        self.request = None
        self._lease: Releasable | None = None
        self._times: Timed = Times()
        self._outputs: Sequence[OutputTensor] = ()
        self._parameters = NO_PARAMETERS

    def cancel(self) -> None:
        """Its answer is not needed any more: it is Cancelled, unless there is one already."""
        if self.request is not None:
            self.request.cancel()

    def computed(self, times: Timed, lease: Releasable | None) -> None:
        """As `Caller` says."""
        self._times, self._lease = times, lease

    def encode(self, request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """Keep the outputs, or copies of what is not lent."""
        self._parameters = request.response_parameters
        self._outputs = outputs if self._lease is not None else [_copied(o) for o in outputs]
        return b""

    def respond(self, _: PendingRequest, answer: Answer) -> None:
        """Hand the answer on."""
        self._ended()
        lease, self._lease = self._lease, None
        outputs, self._outputs = self._outputs, ()
        self.request = None
        # who gets the answer knows this call, and the requests that it was for
        on_answer, self._on_answer = self._on_answer, _answered
        if not isinstance(answer, PenstockError):
            on_answer(Tensors(outputs, self.rows, self._times, lease, self._parameters))
            return
        if lease is not None:
            lease.release()
        on_answer(answer)


def _answered(_: Tensors | PenstockError) -> None:
    """Nobody waits any more."""


def _copied(tensor: OutputTensor) -> OutputTensor:
    return OutputTensor(tensor.name, tensor.datatype, tensor.shape, bytes(tensor.data))
