"""A request to a model that is rolled out: to one of its versions, and where that fails it to the other one. Its client
waits for one answer, and is told of nothing else."""

from __future__ import annotations

import time
from typing import Final, Protocol

from msgspec import structs

from penstock.errors import (
    Cancelled,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    ModelFailed,
    PenstockError,
)
from penstock.gateway.output_looks import Summary, has_non_finite
from penstock.gateway.retarget import for_model
from penstock.gateway.rollout_sight import NOT_OBSERVED, RolloutCounts, Run, kind_of
from penstock.gateway.shadow_copies import Kept, ShadowCopies, arranged
from penstock.repository.ensemble_pool import EnsemblePool
from penstock.repository.served_model import ServedModel
from penstock.rollouts.observation import Observation
from penstock.rollouts.plan import RolloutPlan
from penstock.types import OutputTensor
from penstock.workers.request import (
    Answer,
    Part,
    PendingRequest,
    Releasable,
    RequestPlan,
    Timed,
)

NOT_FINITE: Final = "the model's outputs have numbers that are NaN or infinite"

_CLIENTS: Final = (InvalidRequest, Forbidden, Cancelled, DeadlineExceeded)


class Rollout(Protocol):
    """The request's model's, as `live_rollout.py` has it."""

    @property
    def plan(self) -> RolloutPlan:
        """What it is to do."""
        ...

    fallback: bool
    summary: Summary
    counts: RolloutCounts
    running: dict[PendingRequest, RolledRequest]
    copies: ShadowCopies

    def unit(self, tenant: str, request_id: str) -> int:
        """By what the version was chosen; 0: by chance."""
        ...

    def stable_model(self) -> ServedModel:
        """Raises NotFound, Unavailable."""
        ...

    def saw(self, observation: Observation, *, is_hidden: bool = False) -> None:
        """A version has answered a request, or should have."""
        ...


class Turn(Protocol):
    """The version that takes it first."""

    is_candidate: bool
    is_copied: bool
    model: ServedModel
    plan: RequestPlan

    def plan_of(self, model: ServedModel) -> RequestPlan:
        """The request's plan at the other version. Raises InvalidRequest."""
        ...


class RolledRequest:
    """One, from its queue to its answer. Stands for its client at the versions: encoder, sink, caller and trace of the
    requests that are sent to them."""

    __slots__ = (
        "_at_once",
        "_failed",
        "_fallen",
        "_inner",
        "_kept",
        "_lease",
        "_live",
        "_missed",
        "_model",
        "_non_finite",
        "_outer",
        "_run",
        "_sent",
        "_summary",
        "_times",
        "_turn",
        "depth",
        "holder",
    )

    def __init__(self, live: Rollout, turn: Turn, outer: PendingRequest) -> None:
        """`outer`: the client's, which no queue has."""
        self._live = live
        self._turn = turn
        self._outer = outer
        self._model = turn.model
        self._inner: PendingRequest | None = None
        self._at_once = self._fallen = self._sent = self._non_finite = False
        self._run = Run(outer.trace)
        self._failed: PenstockError | None = None
        """An error that was one of several responses."""
        self._summary: float | None = None
        self._kept: Kept | None = None
        self._missed: Observation | None = None
        """The candidate's failure, while the other version tries."""
        self._lease: Releasable | None = None
        self._times: Timed | None = None
        caller = outer.caller
        # as Caller, where the client is a model itself
        self.depth = 0 if caller is None else caller.depth
        self.holder: object = None if caller is None else caller.holder

    def start(self, *, at_once: bool = False) -> None:
        """Send it. Raises what the version raises, or where it falls back the other one."""
        self._at_once = at_once
        self._live.running[self._outer] = self
        try:
            self._send(self._turn.plan, self._outer.arrived_ns)
        except PenstockError as error:
            try:
                self._refused(error)
            except PenstockError:
                del self._live.running[self._outer]
                raise

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        if self._inner is not None:
            self._inner.cancel()

    # ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _refused(self, error: PenstockError) -> None:
        if not self._may_fall_back(error):
            self._live.saw(self._observed(error))
            raise error
        self._missed = self._observed(error)
        try:
            self._fall_back()
        except PenstockError:
            self._tell_missed(stable_failed=True)
            raise

    def _send(self, plan: RequestPlan, arrived_ns: int) -> None:
        """Have `_model` run it. Raises what its pool raises."""
        outer, pool = self._outer, self._model.pool
        inner = PendingRequest(
            plan,
            outer.id,
            arranged(plan, outer.plan, outer.buffers),
            self,
            self.respond,
            arrived_ns,
            pool,
            outer.nbytes,
            outer.tenant,
            outer.deadline_us,
            outer.deadline_is_clients,
        )
        if outer.sink is not None:
            inner.sink = self
        if outer.caller is not None:
            inner.caller = self
        inner.trace = outer.trace if self._fallen else self._run
        before, self._inner = self._inner, inner
        try:
            if self._at_once or (self._fallen and outer.is_held_for):
                # an instance waits for it, and nobody knows that it would wait for this pool too
                pool.submit_at_once(inner)
            else:
                pool.submit(inner)
        except PenstockError:
            self._inner = before
            raise

    def _may_fall_back(self, error: PenstockError) -> bool:
        return (
            self._turn.is_candidate
            and self._live.fallback
            and not (self._fallen or self._sent or self._at_once or self._outer.done)
            and not _is_clients(error)
            # another version does not know what came before
            and self._turn.plan.sequence is None
        )

    def _fall_back(self) -> None:
        """Have the stable version answer. Raises what that raises."""
        self._fallen = True
        self._live.counts.fallbacks += 1
        self._model = model = self._live.stable_model()
        plan = self._turn.plan_of(model)
        self._outer.encode = for_model(self._outer.encode, model)
        self._send(plan, time.monotonic_ns())

    # ── back ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def __call__(self, inner: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """As `Encode` says, by the client's own encoder. Raises ModelFailed where the client is better off with the
        other version's outputs."""
        outer, live = self._outer, self._live
        if not self._fallen and inner.sink is None:
            self._look(outputs)
            if self._non_finite and self._may_fall_back(refused := ModelFailed(NOT_FINITE)):
                raise refused
            if self._turn.is_copied:
                self._kept = live.copies.keep(self._turn, outer, outputs)
        outer.response_parameters = inner.response_parameters
        if outer.caller is not None and self._times is not None:
            lease, self._lease = self._lease, None
            outer.caller.computed(self._times, lease)
        return outer.encode(outer, outputs)

    def _look(self, outputs: list[OutputTensor]) -> None:
        self._non_finite = self._non_finite or has_non_finite(outputs)
        if self._summary is None and not self._non_finite:
            self._summary = self._live.summary(outputs)

    def respond(self, inner: PendingRequest, answer: Answer) -> None:
        """As `Respond` says."""
        if inner is not self._inner:
            # the other version answers in its place
            return
        error = answer if isinstance(answer, PenstockError) else None
        if error is not None:
            self._give_back()
            if self._may_fall_back(error):
                self._replace(error)
                return
        self._end(answer)
        error = error or self._failed
        if self._missed is not None:
            self._tell_missed(stable_failed=error is not None and not _is_clients(error))
            return
        if isinstance(error, NOT_OBSERVED):
            self._forget_copy()
            return
        observed = self._observed(error)
        self._live.saw(observed)
        if self._kept is not None:
            self._live.copies.send(self._kept, observed)

    def part(self, request: PendingRequest, part: Part) -> None:
        """As `Sink` says. Until one response is sent, the other version can answer in this one's place."""
        outer = self._outer
        if request is not self._inner or outer.sink is None:
            part.taken()
            return
        failed = self._problem_of(part)
        if failed is not None:
            if self._may_fall_back(failed):
                part.taken()
                self._replace(failed)
                request.cancel()
                return
            if not self._non_finite or self._fallen:
                self._failed = failed
        self._sent = True
        outer.response_parameters = request.response_parameters
        outer.sink.part(outer, part)

    def _problem_of(self, part: Part) -> PenstockError | None:
        if isinstance(part.outputs, PenstockError):
            return part.outputs
        if part.outputs is not None and not self._fallen:
            self._look(part.outputs)
            return ModelFailed(NOT_FINITE) if self._non_finite else None
        return None

    def _replace(self, error: PenstockError) -> None:
        """Have the stable version answer in the candidate's place."""
        self._missed, self._failed = self._observed(error), None
        try:
            self._fall_back()
        except PenstockError as refused:
            self._end(refused)
            self._tell_missed(stable_failed=not _is_clients(refused))

    def _tell_missed(self, *, stable_failed: bool) -> None:
        """What became of the candidate's try, when it is known whether the other version could do it."""
        missed, self._missed = self._missed, None
        if missed is not None:
            seen = structs.replace(missed, stable_failed=stable_failed)
            self._live.saw(seen, is_hidden=True)

    def _end(self, answer: Answer) -> None:
        self._live.running.pop(self._outer, None)
        # the two know each other
        self._inner = None
        self._outer.finish(answer)

    def _give_back(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _forget_copy(self) -> None:
        if self._kept is not None:
            self._live.copies.ended(self._kept)

    def _observed(self, error: PenstockError | None) -> Observation:
        outer, turn, plan = self._outer, self._turn, self._live.plan
        took_us = self._run.took_us
        if not took_us and error is None and isinstance(turn.model.pool, EnsemblePool):
            took_us = (time.monotonic_ns() - outer.arrived_ns) / 1000
        ok = error is None or self._non_finite
        sequence = turn.plan.sequence
        return Observation(
            plan.candidate if turn.is_candidate else plan.stable,
            took_us,
            ok,
            "" if ok else kind_of(error),
            non_finite=self._non_finite,
            summary=self._summary,
            unit=self._live.unit(outer.tenant, outer.id if sequence is None else str(sequence.id)),
        )

    def computed(self, times: Timed, lease: Releasable | None) -> None:
        """As Caller. The tensors are the client's when they are encoded for it, and not before."""
        self._times, self._lease = times, lease


def _is_clients(error: PenstockError) -> bool:
    """Another version would not spare the client this."""
    return isinstance(error, _CLIENTS)
