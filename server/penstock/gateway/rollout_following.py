"""Roll-outs follow their models: they wait for versions that are to come, and end when these are lost."""

from __future__ import annotations

import logging

from penstock.errors import PenstockError, Unavailable
from penstock.gateway.rollout_effects import RolloutEffects
from penstock.gateway.rollout_index import RolloutIndex
from penstock.gateway.rollout_run import RolloutRun, now_us
from penstock.gateway.rollout_saving import RolloutSaving
from penstock.gateway.rollout_versions import VersionSource, alias_to_move, both_versions
from penstock.gateway.rollout_watch import Absence
from penstock.repository.jobs import Jobs
from penstock.repository.repository import ModelRepository
from penstock.repository.served_model import ServedModel

log = logging.getLogger(__name__)


class RolloutFollowing:
    """Of all roll-outs."""

    def __init__(
        self,
        index: RolloutIndex,
        repository: ModelRepository,
        source: VersionSource,
        effects: RolloutEffects,
        absence: Absence,
        saving: RolloutSaving,
        jobs: Jobs,
    ) -> None:
        self._index = index
        self._repository = repository
        self._source = source
        self._effects = effects
        self._absence = absence
        self._saving = saving
        self._jobs = jobs
        self._loaded = False
        self._closed = False

    def models_are_loaded(self) -> None:
        """All that could be at the start is: what is missing from now on is missed."""
        self._loaded = True
        for run in self._index.under_way():
            if self._source.serves(run.plan.model):
                self._jobs.start(self._bring(run))

    def models_changed(self) -> None:
        """What has waited for models goes on, and what has lost them ends."""
        if self._closed:
            return
        for run in self._index.under_way():
            self.follow(run)

    def follow(self, run: RolloutRun) -> None:
        """Its models may have come, changed, or gone."""
        plan = run.plan
        try:
            models = both_versions(self._repository, plan)
        except Unavailable as error:
            self._missing(run, error, for_good=False)
            return
        except PenstockError as error:
            # one that an earlier server has begun may come yet
            self._missing(run, error, for_good=run.begun)
            return
        self._absence.over(run)
        if not run.begun:
            self.split(run, models)
        elif run.made_of != self._repository.made_of(plan.model, plan.candidate) and not run.over:
            self._end(run, f"version {plan.candidate} was loaded anew, from other files")

    def split(self, run: RolloutRun, models: tuple[ServedModel, ServedModel]) -> None:
        """Requests are split from the next one on."""
        model = run.plan.model
        run.problem = ""
        if not run.alias and self._source.serves(model):
            run.alias = alias_to_move(self._source, model, run.plan.stable)
        run.begin(models[0], self._repository.made_of(model, run.plan.candidate))
        self._repository.roll_out(model, run.live)
        if run.over:
            # by an earlier gateway, which could not do it any more
            self._effects.promote(run, run.by)
        self._saving.begin()

    def close(self) -> None:
        """Models may go from now on: nothing is made of it."""
        self._closed = True
        self._absence.close()

    def _missing(self, run: RolloutRun, error: PenstockError, *, for_good: bool) -> None:
        """A version is not there, or is another one. At the start there is nothing yet."""
        if not self._loaded or self._closed:
            return
        run.problem = str(error)
        if run.over or not (for_good or self._absence.is_long(run)):
            return
        self._absence.over(run)
        self._end(run, f"it can't go on: {error}")

    def _end(self, run: RolloutRun, reason: str) -> None:
        self._effects.decided(run, run.rollout.abort(now_us(), reason))

    async def _bring(self, run: RolloutRun) -> None:
        """Have a registry's version loaded again."""
        try:
            await self._source.want(run.plan.model, run.plan.candidate)
        except PenstockError as error:
            log.warning("the roll-out of model '%s' waits: %s", run.plan.model, error)
            self._missing(run, error, for_good=False)
