"""How a roll-out begins: all that may refuse it comes before any of it holds."""

from __future__ import annotations

from penstock.errors import Conflict, PenstockError
from penstock.gateway.rollout_effects import RolloutEffects
from penstock.gateway.rollout_following import RolloutFollowing
from penstock.gateway.rollout_index import RolloutIndex
from penstock.gateway.rollout_keeper import RolloutKeeper
from penstock.gateway.rollout_request import RolloutRequest
from penstock.gateway.rollout_run import RolloutRun, now_us
from penstock.gateway.rollout_versions import (
    VersionSource,
    alias_to_move,
    both_versions,
    check_gates,
    stable_version,
    version_of,
)
from penstock.repository.repository import ModelRepository
from penstock.repository.served_model import ServedModel
from penstock.rollouts.plan import RolloutPlan
from penstock.rollouts.state import Rollout
from penstock.rollouts_config import RolloutsSettings


class RolloutStart:
    """Of all roll-outs; one of a model at a time."""

    def __init__(
        self,
        index: RolloutIndex,
        repository: ModelRepository,
        settings: RolloutsSettings,
        keeper: RolloutKeeper,
        source: VersionSource,
        effects: RolloutEffects,
        following: RolloutFollowing,
    ) -> None:
        self._index = index
        self._repository = repository
        self._settings = settings
        self._keeper = keeper
        self._source = source
        self._effects = effects
        self._following = following
        self._starting: set[str] = set()

    async def start(self, model: str, request: RolloutRequest, by: str) -> RolloutRun:
        """Begin one. Raises as `Rollouts.start` does."""
        self._check_free(model)
        if not self._source.serves(model):
            self._repository.get(model)
        self._starting.add(model)
        try:
            candidate = await version_of(self._source, model, request.to)
            if not request.despite_gates:
                await check_gates(self._source, model, candidate)
            await self._source.want(model, candidate)
            try:
                run = await self._begin(model, request, candidate, by)
            except BaseException:
                self._source.unwant(model, candidate)
                raise
        finally:
            self._starting.discard(model)
        self._effects.begun(run, by)
        return run

    def _check_free(self, model: str) -> None:
        run = self._index.going(model)
        if model in self._starting:
            raise Conflict(f"a roll-out of model '{model}' is being started")
        if run is not None:
            raise Conflict(
                f"the roll-out of model '{model}' from version {run.plan.stable} to {run.plan.candidate} is"
                f" {run.rollout.status.value}: it has to end first"
            )
        if model in self._repository.rollouts:
            raise Conflict(f"sequences of model '{model}' go on from its last roll-out")

    async def _begin(
        self, model: str, request: RolloutRequest, candidate: int, by: str
    ) -> RolloutRun:
        stable = await stable_version(
            self._repository, self._source, model, request.since, candidate
        )
        plan = request.plan(self._settings, model, stable, candidate)
        both_versions(self._repository, plan)
        run = self._run_of(plan, by)
        # a crash right after this finds a roll-out that has begun, and never the candidate without one
        await self._keeper.save(run.kept())
        models = await self._settle_default(plan)
        self._index.put(run)
        self._following.split(run, models)
        return run

    def _run_of(self, plan: RolloutPlan, by: str) -> RolloutRun:
        alias = ""
        if self._source.serves(plan.model):
            alias = alias_to_move(self._source, plan.model, plan.stable)
        rollout = Rollout.start(plan, now_us())
        run = RolloutRun(self._repository, rollout, self._effects.decided, by, alias)
        run.tried |= self._index.tried(plan.model)
        return run

    async def _settle_default(self, plan: RolloutPlan) -> tuple[ServedModel, ServedModel]:
        """The stable version answers what the roll-out does not take. Both versions, which may have gone meanwhile."""
        model = plan.model
        try:
            if not self._source.serves(model):
                await self._keeper.set_default(model, plan.stable)
            models = both_versions(self._repository, plan)
        except PenstockError:
            await self._keeper.remove(model)
            raise
        if not self._source.serves(model):
            self._repository.set_default(model, plan.stable)
        return models
