"""A model's roll-out on the event loop: which of its two versions takes a request. `rolled_request.py` has the rest of
that request's way."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping
from enum import Enum
from typing import Final, Protocol

from penstock.errors import InvalidRequest, NotFound, Unavailable
from penstock.gateway.output_looks import NO_SUMMARY, Summary
from penstock.gateway.rolled_request import RolledRequest
from penstock.gateway.rollout_sight import Judge, RolloutCounts
from penstock.gateway.shadow_copies import ShadowCopies
from penstock.repository.model_pool import Taker
from penstock.repository.sequence_handover import Handovers
from penstock.repository.sequence_pool import SequencePool
from penstock.repository.served_model import ServedModel
from penstock.rollouts.observation import Observation, ShadowPair
from penstock.rollouts.plan import RolloutPlan
from penstock.rollouts.split import WHOLE, share_of_unit, unit_of, watch_place_of, watched_of
from penstock.types import InferHeader, Parameter
from penstock.workers.request import PendingRequest, RequestPlan

MAX_TURNS: Final = 2048
"""Headers whose plans are remembered."""


class Models(Protocol):
    """Where the versions are."""

    @property
    def generation(self) -> int:
        """Changes with them."""
        ...

    @property
    def handovers(self) -> Handovers:
        """Knows which versions that were replaced still have sequences."""
        ...

    def get(self, name: str, version: str = "") -> ServedModel:
        """The model's version. Raises NotFound, Unavailable."""
        ...


class Role(Enum):
    """What becomes of a request."""

    PASS = "pass"
    """The stable version answers it, and nobody looks: as many are looked at as comparisons need."""
    WATCH = "watch"
    """The stable version answers it, and that is compared."""
    COPY = "copy"
    """As PASS, and the candidate gets a copy of it."""
    TAKE = "take"
    """The candidate answers it."""


class Turn:
    """The version that takes requests of one header, as their pool."""

    __slots__ = (
        "_live",
        "_plans",
        "header",
        "is_candidate",
        "is_copied",
        "is_missing",
        "model",
        "plan",
        "pool",
    )

    def __init__(
        self,
        live: LiveRollout,
        header: InferHeader,
        model: ServedModel,
        role: Role,
        *,
        is_missing: bool = False,
    ) -> None:
        """`is_missing`: it would be the candidate's turn, which can't take it. Raises InvalidRequest."""
        self._live = live
        self.header = header
        """Kept, so that its `id()` is not given to another while this is remembered."""
        self.model = model
        self.plan = model.signature.plan(header)
        self.pool: Taker = model.pool if role is Role.PASS else self
        """What takes the requests."""
        self._plans = {id(model): (model, self.plan)}
        self.is_candidate = role is Role.TAKE
        self.is_copied = role is Role.COPY
        self.is_missing = is_missing

    def plan_of(self, model: ServedModel) -> RequestPlan:
        """The same request's plan at the other version. Raises InvalidRequest."""
        known = self._plans.get(id(model))
        if known is None:
            known = self._plans[id(model)] = model, model.signature.plan(self.header)
        return known[1]

    def submit(self, request: PendingRequest) -> None:
        """As Taker."""
        RolledRequest(self._live, self, request).start()

    def submit_at_once(self, request: PendingRequest) -> None:
        """As Taker."""
        RolledRequest(self._live, self, request).start(at_once=True)

    def cancel(self, request: PendingRequest) -> None:
        """As Taker."""
        rolled = self._live.running.get(request)
        if rolled is not None:
            rolled.cancel()


class LiveRollout:
    """One model's."""

    def __init__(self, models: Models, plan: RolloutPlan, judge: Judge) -> None:
        self._models = models
        self.plan: Final = plan
        self._judge = judge
        self.shadow = plan.mode == "shadow"
        self.fallback = plan.fallback
        self._salt = f"{plan.model}/{plan.candidate}"
        self.share = 0
        self.counts = RolloutCounts()
        self.running: dict[PendingRequest, RolledRequest] = {}
        self.copies = ShadowCopies(self)
        self.summary = NO_SUMMARY
        self._turns: dict[tuple[int, Role], Turn] = {}
        self._turns_of = -1

    def begin(self, stable: ServedModel) -> None:
        """Before the first request. `stable`: its outputs say what answers say."""
        self.summary = Summary(stable.config.output, batched=stable.config.max_batch_size > 0)

    def sequences_of(self, version: int) -> int:
        """How many that have not ended are with that version."""
        try:
            pool = self._models.get(self.plan.model, str(version)).pool
        except (NotFound, Unavailable):
            return 0
        return pool.queue.live if isinstance(pool, SequencePool) else 0

    def choose(
        self, header: InferHeader, tenant: str, request_id: str, *, remember: bool = True
    ) -> Turn:
        """As RolledOut."""
        stable = self.stable_model()
        if stable.config.sequence_batching is not None:
            return self._of_sequence(stable, header, tenant)
        unit = self.unit(tenant, request_id)
        role = self.role(unit)
        if self._turns_of != self._models.generation or len(self._turns) >= MAX_TURNS:
            self._turns.clear()
            self._turns_of = self._models.generation
        turn = self._turns.get((id(header), role))
        if turn is None:
            turn = self._turn(header, stable, role)
            if remember:
                self._turns[id(header), role] = turn
        if role is Role.PASS:
            self.counts.passed += 1
        elif turn.is_missing:
            kind = Unavailable.__name__
            missed = Observation(self.plan.candidate, 0, ok=False, error_kind=kind, unit=unit)
            self.saw(missed, is_hidden=True)
        return turn

    def role(self, unit: int) -> Role:
        """What becomes of a request. Whose unit is 0 is drawn."""
        share = self._share
        # no secret
        if (share_of_unit(unit) if unit else random.randrange(WHOLE)) < share:
            return Role.COPY if self.shadow else Role.TAKE
        if self.shadow:
            return Role.PASS
        place = watch_place_of(unit) if unit else random.randrange(WHOLE)
        return Role.WATCH if place < self._watched else Role.PASS

    @property
    def share(self) -> int:
        """How many of `WHOLE` requests the candidate takes, or gets copies of."""
        return self._share

    @share.setter
    def share(self, share: int) -> None:
        self._share = share
        self._watched = watched_of(share)

    def unit(self, tenant: str, request_id: str) -> int:
        """What decides; 0: chance."""
        if not request_id or not self.plan.sticky:
            return 0
        return unit_of(tenant, request_id, self._salt)

    def stable_model(self) -> ServedModel:
        """Raises NotFound, Unavailable."""
        return self._models.get(self.plan.model, str(self.plan.stable))

    def candidate_model(self) -> ServedModel | None:
        """None: it can't take requests."""
        try:
            return self._models.get(self.plan.model, str(self.plan.candidate))
        except (NotFound, Unavailable):
            return None

    def saw(self, observation: Observation, *, is_hidden: bool = False) -> None:
        """A version has answered a request, or should have. `is_hidden`: its client has another version's answer."""
        is_candidate = observation.version == self.plan.candidate
        (self.counts.candidate if is_candidate else self.counts.stable).count(observation)
        if is_candidate and not is_hidden and (not observation.ok or observation.non_finite):
            self.counts.seen_failures += 1
        if not self.shadow:
            self._judge.observe(observation)

    def paired(self, pair: ShadowPair) -> None:
        """Both versions have run a request."""
        self.counts.candidate.count(pair.candidate)
        self.counts.mismatches += bool(pair.mismatch)
        self._judge.pair(pair)

    def _turn(self, header: InferHeader, stable: ServedModel, role: Role) -> Turn:
        if role is not Role.TAKE:
            return Turn(self, header, stable, role)
        candidate = self.candidate_model()
        if candidate is not None:
            # a version that was loaded anew may take other requests than the one before it did
            with contextlib.suppress(InvalidRequest):
                return Turn(self, header, candidate, role)
        return Turn(self, header, stable, Role.WATCH, is_missing=True)

    def _of_sequence(self, stable: ServedModel, header: InferHeader, tenant: str) -> Turn:
        """A sequence stays where it began, whatever the share is by now."""
        parameters = header.parameters
        if self.holds_sequence(self.candidate_model(), parameters, tenant):
            return self._turn(header, stable, Role.TAKE)
        if self.holds_sequence(stable, parameters, tenant):
            return self._turn(header, stable, Role.WATCH)
        if parameters.get("sequence_start"):
            unit = self.unit(tenant, str(parameters.get("sequence_id", "")))
            takes = self.role(unit) is Role.TAKE
            return self._turn(header, stable, Role.TAKE if takes else Role.WATCH)
        keeper = self._models.handovers.keeper(stable, parameters, tenant)
        return self._turn(header, keeper or stable, Role.WATCH)

    @staticmethod
    def holds_sequence(
        model: ServedModel | None, parameters: Mapping[str, Parameter], tenant: str
    ) -> bool:
        """Whether the request's sequence is with that version."""
        sequence_id = parameters.get("sequence_id")
        return (
            model is not None
            and isinstance(sequence_id, int | str)
            and isinstance(model.pool, SequencePool)
            and model.pool.holds((tenant, sequence_id))
        )
