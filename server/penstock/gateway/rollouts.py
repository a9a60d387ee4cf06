"""All roll-outs of a server: what is asked of them, from one start of the server to its end."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from penstock.audit.log import AuditLog
from penstock.config import Settings
from penstock.errors import Conflict, InvalidRequest, Unavailable
from penstock.gateway.rollout_effects import RolloutEffects
from penstock.gateway.rollout_following import RolloutFollowing
from penstock.gateway.rollout_hold import RolloutHold
from penstock.gateway.rollout_index import RolloutIndex
from penstock.gateway.rollout_keeper import RolloutKeeper
from penstock.gateway.rollout_records import RolloutRecords
from penstock.gateway.rollout_request import RolloutRequest
from penstock.gateway.rollout_run import RolloutRun, now_us
from penstock.gateway.rollout_saving import RolloutSaving
from penstock.gateway.rollout_start import RolloutStart
from penstock.gateway.rollout_store import store_of
from penstock.gateway.rollout_versions import VersionSource
from penstock.gateway.rollout_watch import Absence
from penstock.repository.jobs import Jobs
from penstock.repository.repository import ModelRepository
from penstock.rollouts.decisions import Status
from penstock.rollouts.state import Rollout
from penstock.rollouts_config import RolloutsSettings

log = logging.getLogger(__name__)


class Rollouts:
    """One a gateway. All of it runs on the event loop."""

    def __init__(
        self,
        repository: ModelRepository,
        settings: RolloutsSettings,
        keeper: RolloutKeeper,
        source: VersionSource,
        records: RolloutRecords,
    ) -> None:
        self._repository = repository
        self._keeper = keeper
        self._source = source
        self._jobs = jobs = Jobs()
        self._loaded = False
        absence = Absence(settings.absent_secs, self._look)
        self._hold = RolloutHold(repository, settings.hold, keeper, source)
        self.index: Final = RolloutIndex(repository)
        self._saving = RolloutSaving(self.index, keeper)
        self.effects: Final = RolloutEffects(repository, keeper, source, records, absence, jobs)
        self._following = RolloutFollowing(
            self.index, repository, source, self.effects, absence, self._saving, jobs
        )
        self._start = RolloutStart(
            self.index, repository, settings, keeper, source, self.effects, self._following
        )

    # ── what is asked of it ─────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, model: str, request: RolloutRequest, by: str = "") -> RolloutRun:
        """Begin a roll-out. Goes on when its caller is cancelled. `by`: who asks for it.

        Raises Conflict where one of the model goes on, InvalidRequest on a plan that can't be, or versions that don't
        answer the same requests, NotFound, Unavailable, LoadFailed.
        """
        return await self._jobs.run(self._start.start(model, request, by))

    def pause(self, model: str, by: str = "") -> RolloutRun:
        """Stay at the step. Raises NotFound, InvalidRequest."""
        run = self.index.run_of(model)
        run.rollout.pause(now_us(), by)
        self.effects.changed(run)
        return run

    def resume(self, model: str, by: str = "") -> RolloutRun:
        """Go on with the step. Raises NotFound, InvalidRequest."""
        run = self.index.run_of(model)
        run.rollout.resume(now_us(), by)
        run.follow_share()
        self.effects.changed(run)
        return run

    def promote(self, model: str, by: str = "") -> RolloutRun:
        """Have the candidate answer all requests from now on. Raises NotFound, InvalidRequest, and Unavailable where it
        can't."""
        run = self.index.run_of(model)
        if not run.over and run.live.candidate_model() is None:
            version = run.plan.candidate
            raise Unavailable(f"version {version} of model '{model}' can't take requests now")
        self.effects.decided(run, run.rollout.promote(now_us(), by), by)
        return run

    def abort(self, model: str, reason: str) -> RolloutRun:
        """Go back to the stable version, also from a promotion that can't be carried out. Raises NotFound,
        InvalidRequest."""
        run = self.index.run_of(model)
        if run.rollout.status is Status.PROMOTED and not run.done:
            if run.promotion is not None:
                run.promotion.cancel()
            self.effects.decided(run, run.rollout.recall(now_us(), reason))
        else:
            self.effects.decided(run, run.rollout.abort(now_us(), reason))
        return run

    async def forget(self, model: str, reason: str) -> RolloutRun:
        """Abort what goes on, and know nothing of it any more. Raises NotFound, Conflict, Unavailable."""
        run = self.index.run_of(model)
        if not run.over:
            self.abort(model, reason)
        elif not run.done:
            raise Conflict(
                f"version {run.plan.candidate} of model '{model}' is being promoted; abort goes back from that"
            )
        await self._keeper.remove(model)
        self.index.remove(run)
        return run

    # ── its life ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def restore(self) -> None:
        """Before any model is loaded: which versions answer, and which roll-outs there are."""
        kept = await self._keeper.load()
        for model, version in self._keeper.defaults.items():
            if not self._source.serves(model):
                self._repository.expect_default(model, version)
        for each in kept:
            try:
                rollout = Rollout.from_json(bytes(each.state), now_us())
            except InvalidRequest as error:
                log.error("the roll-out of model '%s' is lost: %s", each.model, error)  # noqa: TRY400 - it says all
                continue
            run = RolloutRun.restored(self._repository, rollout, self.effects.decided, each)
            self.index.put(run)

    def models_are_loaded(self) -> None:
        """All that could be at the start is: what is missing from now on is missed."""
        self._loaded = True
        self._following.models_are_loaded()
        self.follow_models()

    def follow_models(self) -> None:
        """Models have changed: what has waited for them goes on, and what has lost them ends."""
        if self._loaded:
            self._hold.follow_models()
        self._following.models_changed()

    async def close(self) -> None:
        """Keep all that there is to keep. Models may go from now on."""
        self._loaded = False
        self._following.close()
        self.effects.close()
        await self._jobs.close()
        for run in self.index.runs():
            run.stop()
        self._saving.close()
        await asyncio.to_thread(self._keeper.close)

    def _look(self, run: RolloutRun) -> None:
        """A version has been missing for too long."""
        self._following.follow(run)


def rollouts_of(
    settings: Settings,
    repository: ModelRepository,
    source: VersionSource,
    audit_log: AuditLog | None,
) -> Rollouts:
    """All of a gateway's, none of them known yet."""
    keeper = RolloutKeeper(store_of(settings))
    records = RolloutRecords(audit_log, source)
    return Rollouts(repository, settings.rollouts, keeper, source, records)
