"""Requests that models and ensembles send to other models: ordinary requests of those, on their caller's terms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from penstock.errors import InvalidRequest, PenstockError
from penstock.repository.model_pool import ModelPool, Taker
from penstock.repository.nested_call import NO_PARAMETERS, NestedCall, OnAnswer, Terms
from penstock.repository.rolled import RolledOut
from penstock.repository.served_model import ServedModel
from penstock.repository.signature import check_sizes
from penstock.repository.waits import Waits
from penstock.types import InferHeader, OutputTensor, Parameter, RequestedOutput, TensorSpec
from penstock.workers.request import PendingRequest, RequestPlan, Sink

MAX_DEPTH: Final = 16
"""Requests below a client's, each the next one's caller: deeper ones are taken for a circle."""

MAX_PLANS: Final = 2048
"""Of headers that were seen, which are remembered."""


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
