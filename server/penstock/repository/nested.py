"""Requests that models and ensembles send to other models: ordinary requests of those, on their caller's terms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

import msgspec

from penstock.errors import InvalidRequest, PenstockError
from penstock.repository.model_pool import ModelPool, Taker
from penstock.repository.rolled import RolledOut
from penstock.repository.served_model import ServedModel
from penstock.repository.signature import check_sizes
from penstock.repository.waits import Waits
from penstock.types import InferHeader, OutputTensor, Parameter, RequestedOutput, TensorSpec
from penstock.workers.request import (
    Answer,
    PendingRequest,
    Releasable,
    RequestPlan,
    RequestTrace,
    Sink,
    Timed,
)

MAX_DEPTH: Final = 16
"""Requests below a client's, each the next one's caller: deeper ones are taken for a circle."""

MAX_PLANS: Final = 2048
"""Of headers that were seen, which are remembered."""

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


class Models(Protocol):
    """Where the models are."""

    @property
    def generation(self) -> int:
        """Changes with them."""
        ...

    def get(self, name: str, version: str = "") -> ServedModel:
        """The model's version, or the highest that is ready. Raises NotFound, Unavailable, InvalidRequest."""
        ...


Keeper = Callable[[ServedModel, Mapping[str, Parameter], str], ServedModel | None]
"""Which model that was replaced has the tenant's sequence that a request of these parameters goes on with."""


def nobody(_: ServedModel, __: Mapping[str, Parameter], ___: str) -> None:
    """No model does."""


_Bound = tuple[ServedModel, RequestPlan, Taker]
NO_ROLLOUTS: Final[Mapping[str, RolledOut]] = {}


class NestedCalls:
    """Sends requests to the models of a repository."""

    def __init__(
        self,
        repository: Models,
        keeper: Keeper = nobody,
        rollouts: Mapping[str, RolledOut] = NO_ROLLOUTS,
    ) -> None:
        """`rollouts`: by model, as they are at each request."""
        self._repository = repository
        self._keeper = keeper
        self._rollouts = rollouts
        self._plans: dict[object, _Bound] = {}
        self._plans_of = repository.generation
        self._waits = Waits()

    def submit(
        self,
        model_name: str,
        model_version: str,
        inputs: Sequence[OutputTensor],
        outputs: tuple[str, ...],
        terms: Terms,
        on_answer: OnAnswer,
        request_id: str = "",
        parameters: Mapping[str, Parameter] = NO_PARAMETERS,
        sink: Sink | None = None,
    ) -> NestedCall:
        """Send a request. `inputs` must stay valid until it has its answer; `outputs` empty: all of them. `sink` takes
        the responses of a decoupled model, whose answer is empty then; None: such a model is refused.

        Raises NotFound, Unavailable, InvalidRequest, QueueFull, DeadlineExceeded, WorkerCrashed; `on_answer` is not
        called then.
        """
        if terms.depth > MAX_DEPTH:
            raise InvalidRequest(
                f"model '{model_name}' is called by models that are called themselves, more than {MAX_DEPTH} deep: "
                "do they call each other in a circle?"
            )
        model, plan, taker = self._bind(
            model_name, model_version, inputs, outputs, parameters, terms.tenant, request_id
        )
        buffers = [tensor.data for tensor in inputs]
        if plan.order is not None:
            buffers = [buffers[index] for index in plan.order]
        check_sizes(plan, buffers)
        rows = plan.rows if model.config.max_batch_size > 0 else 0
        holder, pool = terms.holder, model.pool
        call = NestedCall(on_answer, rows, terms, lambda: self._ended(holder, pool))
        arrived_ns = time.monotonic_ns()
        deadline_us, is_clients = terms.deadline_us, terms.deadline_is_clients
        if model.timeout_us is not None:
            policy_us = arrived_ns // 1000 + model.timeout_us
            if policy_us < deadline_us:
                deadline_us, is_clients = policy_us, False
        request = call.request = PendingRequest(
            plan,
            request_id,
            buffers,
            call.encode,
            call.respond,
            arrived_ns,
            taker,
            0,
            terms.tenant,
            deadline_us,
            is_clients,
        )
        request.caller = call
        request.sink = sink
        if terms.trace is not None:
            terms.trace.nested(request, model.name, model.version)
        try:
            self._submit(request, holder, pool, taker)
        except PenstockError:
            call.request = None
            raise
        return call

    @contextmanager
    def waiting(self, holder: object, pools: Sequence[object], model: str) -> Iterator[None]:
        """While an instance of the holder waits for the pools of a model to end. Raises InvalidRequest where they wait
        for it."""
        if any(self._waits.circular(holder, pool) for pool in pools):
            raise InvalidRequest(
                f"model '{model}' can't be loaded or unloaded now: it waits for the model that asks for that"
            )
        for pool in pools:
            self._waits.begin(holder, pool)
        try:
            yield
        finally:
            for pool in pools:
                self._waits.end(holder, pool)

    def _submit(
        self, request: PendingRequest, holder: object, pool: ModelPool, taker: Taker
    ) -> None:
        if holder is None:
            taker.submit(request)
            return
        circular = self._waits.circular(holder, pool)
        self._waits.begin(holder, pool)
        try:
            if circular:
                taker.submit_at_once(request)
            else:
                taker.submit(request)
        except PenstockError:
            self._waits.end(holder, pool)
            raise

    def _ended(self, holder: object, pool: ModelPool) -> None:
        if holder is not None:
            self._waits.end(holder, pool)

    def _bind(
        self,
        name: str,
        version: str,
        inputs: Sequence[OutputTensor],
        outputs: tuple[str, ...],
        parameters: Mapping[str, Parameter],
        tenant: str,
        request_id: str,
    ) -> _Bound:
        """The model, the plan that it has for such a request, and what takes it; those without parameters are
        remembered."""
        if self._plans_of != self._repository.generation or len(self._plans) >= MAX_PLANS:
            self._plans.clear()
            self._plans_of = self._repository.generation
        key = None
        if not parameters:
            key = name, version, outputs, tuple([(t.name, t.datatype, t.shape) for t in inputs])
            known = self._plans.get(key)
            if known is not None:
                return known
        header = InferHeader(
            name,
            version,
            tuple([TensorSpec(t.name, t.datatype, t.shape) for t in inputs]),
            tuple([RequestedOutput(output) for output in outputs]),
            parameters,
        )
        rollout = self._rollouts.get(name)
        if rollout is not None and not version:
            turn = rollout.choose(header, tenant, request_id, remember=False)
            return turn.model, turn.plan, turn.pool
        model = self._repository.get(name, version)
        if model.config.sequence_batching is not None:
            model = self._keeper(model, parameters, tenant) or model
        bound = model, model.signature.plan(header), model.pool
        if key is not None:
            self._plans[key] = bound
        return bound


def _answered(_: Tensors | PenstockError) -> None:
    """Nobody waits any more."""


def _copied(tensor: OutputTensor) -> OutputTensor:
    return OutputTensor(tensor.name, tensor.datatype, tensor.shape, bytes(tensor.data))
