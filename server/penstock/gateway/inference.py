"""The data plane: one inference request's way from decoded to answered. Both protocols and both fronts end here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from penstock.errors import PenstockError
from penstock.gateway.client_memory import ClientMemory
from penstock.gateway.told_digest import PARAMETER as TELL_DIGEST
from penstock.gateway.told_digest import TellingDigest
from penstock.repository.model_pool import Taker
from penstock.repository.pool import Pool
from penstock.repository.repository import ModelRepository
from penstock.repository.served_model import ServedModel
from penstock.repository.signature import check_sizes
from penstock.telemetry.tracing.tracing import Tracing
from penstock.types import (
    DEFAULT_TENANT,
    NO_TERMS,
    Buffer,
    CallTerms,
    InferHeader,
    TracedCall,
)
from penstock.verbs import Verb
from penstock.workers.client_regions import Input
from penstock.workers.request import Encode, PendingRequest, RequestPlan, Respond, Sink

MAX_BOUND = 2048
"""Headers whose model and plan are remembered."""

MAX_PARAMETER_CHARACTERS = 4096
"""Headers with longer parameters are not remembered: they are seldom repeated, and would fill the memory."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A header, the model that answers it, and what both say together."""

    header: InferHeader
    """Kept, so that its `id()` is not given to another while this is remembered."""
    model: ServedModel
    plan: RequestPlan
    generation: int
    names_regions: bool
    """Some of its tensors lie in a client's shared memory."""
    pool: Taker
    """What takes its requests: the model's own pool, or its roll-out, which may run them on another version too."""
    tells_digest: bool = False
    """Its responses say which model's files gave them."""


class Inference:
    """Submits requests to the models of a repository."""

    def __init__(
        self,
        repository: ModelRepository,
        client_memory: ClientMemory,
        tracing: Tracing | None = None,
    ) -> None:
        self._repository = repository
        self._client_memory = client_memory
        self._tracing = tracing
        self._bound: dict[int, Bound] = {}
        self._bound_of = repository.generation

    def submit(
        self,
        bound: Bound,
        request_id: str,
        buffers: Sequence[Buffer],
        encode: Encode,
        respond: Respond,
        received_bytes: int,
        terms: CallTerms = NO_TERMS,
        sink: Sink | None = None,
    ) -> PendingRequest:
        """Check the bytes, and queue the request; `respond` gets what `encode` makes of the outputs, or the error.

        `received_bytes`: how long the whole message or body was, which the buffers may keep alive. `sink`: takes the
        responses of a decoupled model.

        Raises InvalidRequest, NotFound, Unsupported, QuotaExceeded, QueueFull, DeadlineExceeded, Unavailable,
        WorkerCrashed.
        """
        plan = bound.plan
        inputs: Sequence[Input] = buffers
        if bound.tells_digest:
            encode = TellingDigest(encode, bound.model)
        if bound.names_regions:
            at_once = plan.sequence is not None or not isinstance(bound.pool, Pool)
            inputs, encode = self._client_memory.attach(
                bound.header,
                buffers,
                encode,
                at_once=at_once,
                tenant=terms.session.tenant if terms.session is not None else DEFAULT_TENANT,
            )
        if plan.order is not None:
            inputs = [inputs[index] for index in plan.order]
        check_sizes(plan, inputs)
        pool = bound.pool
        arrived_ns = time.monotonic_ns()
        timeout_us, is_clients = _timeout(terms, plan, bound.model.timeout_us)
        request = PendingRequest(
            plan,
            request_id,
            inputs,
            encode,
            respond,
            arrived_ns,
            pool,
            received_bytes,
            terms.tenant,
            inf if timeout_us is None else arrived_ns // 1000 + timeout_us,
            is_clients,
        )
        if sink is not None:
            request.sink = sink
        if terms.session is not None:
            self._submit_charged(request, bound, terms)
        elif terms.traced is None:
            pool.submit(request)
        else:
            self._submit_traced(request, bound, terms.traced)
        return request

    def _submit_charged(self, request: PendingRequest, bound: Bound, terms: CallTerms) -> None:
        """Take what it costs from its tenant's quota: some of it until it is answered, or refused."""
        assert terms.session is not None
        lease = request.quota = terms.session.admit(bound.model.name, request.rows, request.nbytes)
        try:
            if terms.traced is None:
                bound.pool.submit(request)
            else:
                self._submit_traced(request, bound, terms.traced)
        except BaseException:
            if lease is not None:
                lease.release()
            raise

    def _submit_traced(self, request: PendingRequest, bound: Bound, call: TracedCall) -> None:
        """As any other, with a trace where its turn has come."""
        trace, model = None, bound.model
        if self._tracing is not None:
            trace = self._tracing.sample(model.name, model.version, request.id, call)
        if trace is None:
            bound.pool.submit(request)
            return
        trace.follow(request)
        try:
            bound.pool.submit(request)
        except PenstockError as error:
            trace.end(error)
            raise

    def bind(self, header: InferHeader, terms: CallTerms, request_id: str = "") -> Bound:
        """The model that answers the header, and its plan. A header that was seen before costs one look-up.
        `request_id` decides which version answers while the model is rolled out; empty: chance does.

        Raises Forbidden, NotFound, Unavailable, InvalidRequest.
        """
        if (session := terms.session) is not None:
            # first: those who may not run it are not told whether there is such a model
            session.check(Verb.INFER, header.model_name)
        bound = self._bound.get(id(header))
        if bound is not None and bound.generation == self._repository.generation:
            return bound
        rollout = self._repository.rollouts.get(header.model_name)
        if rollout is not None and not header.model_version:
            turn = rollout.choose(header, terms.tenant, request_id)
            return self._bind(header, turn.model, turn.plan, turn.pool)
        model = self._repository.get(header.model_name, header.model_version)
        if model.config.sequence_batching is not None:
            keeper = self._repository.handovers.keeper(model, header.parameters, terms.tenant)
            if keeper is not None:
                # not remembered, for the sequence may end any time, and its id be used again
                plan = keeper.signature.plan(header)
                return self._bind(header, keeper, plan, keeper.pool)
        if len(self._bound) >= MAX_BOUND or self._bound_of != self._repository.generation:
            # also so that models which were unloaded are not kept by what was bound to them
            self._bound.clear()
            self._bound_of = self._repository.generation
        bound = self._bind(header, model, model.signature.plan(header), model.pool)
        if _parameter_characters(header) <= MAX_PARAMETER_CHARACTERS:
            self._bound[id(header)] = bound
        return bound

    def _bind(
        self, header: InferHeader, model: ServedModel, plan: RequestPlan, pool: Taker
    ) -> Bound:
        return Bound(
            header,
            model,
            plan,
            self._repository.generation,
            header.names_regions,
            pool,
            bool(header.parameters.get(TELL_DIGEST, False)),
        )


def _timeout(terms: CallTerms, plan: RequestPlan, policy_us: int | None) -> tuple[int | None, bool]:
    """The earliest of the time-outs, and whether it is one of the client's."""
    clients_us = terms.timeout_us
    if plan.timeout_us is not None and (clients_us is None or plan.timeout_us < clients_us):
        clients_us = plan.timeout_us
    if policy_us is not None and (clients_us is None or policy_us < clients_us):
        return policy_us, False
    return clients_us, True


def _parameter_characters(header: InferHeader) -> int:
    return sum(
        len(name) + (len(value) if isinstance(value, str) else 0)
        for name, value in header.parameters.items()
    )
