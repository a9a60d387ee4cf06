"""All roll-outs of a server: begun, watched, ended, and gone on with after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Final

from penstock.access_config import matches
from penstock.audit.log import AuditLog
from penstock.config import Settings
from penstock.errors import Conflict, InvalidRequest, NotFound, PenstockError, Unavailable
from penstock.gateway.rollout_keeper import RolloutKeeper
from penstock.gateway.rollout_promotion import promote
from penstock.gateway.rollout_records import RolloutRecords
from penstock.gateway.rollout_request import RolloutRequest
from penstock.gateway.rollout_run import RolloutRun, now_text, now_us
from penstock.gateway.rollout_store import store_of
from penstock.gateway.rollout_versions import (
    VersionSource,
    alias_to_move,
    both_versions,
    check_gates,
    stable_version,
    version_of,
)
from penstock.gateway.rollout_watch import Absence
from penstock.repository.jobs import Jobs
from penstock.repository.repository import ModelRepository
from penstock.repository.served_model import ServedModel
from penstock.rollouts.decisions import Decision, Promote, RollBack, Status
from penstock.rollouts.state import Rollout
from penstock.rollouts_config import RolloutsSettings

log = logging.getLogger(__name__)

SAVE_S: Final = 5.0
"""From one time that what was seen is kept to the next: a crash costs no more of it."""
DRAIN_S: Final = 2.0
"""From one look whether sequences have ended to the next."""


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
        self._settings = settings
        self._keeper = keeper
        self._source = source
        self._records = records
        self._runs: dict[str, RolloutRun] = {}
        """Each model's last one."""
        self._starting: set[str] = set()
        self._absence = Absence(settings.absent_secs, self._follow)
        self._jobs = Jobs()
        self._saving: asyncio.TimerHandle | None = None
        self._loaded = False
        self._closed = False
        self.on_share: Callable[[], None] = lambda: None
        """Called when a version's share of the requests has changed."""
        self.on_withdrawn: Callable[[str, int], None] = lambda *_: None
        """Called, in a thread, when a registry's version was tried and is not to be served."""

    # ── what is asked of it ─────────────────────────────────────────────────────────────────────────────────────────

    def runs(self) -> Iterator[RolloutRun]:
        """Each model's last one, by the model's name."""
        return (run for _, run in sorted(self._runs.items()))

    def run_of(self, model: str) -> RolloutRun:
        """The model's last one. Raises NotFound."""
        run = self._runs.get(model)
        if run is None:
            raise NotFound(f"there is no roll-out of model '{model}'")
        return run

    def going(self, model: str) -> RolloutRun | None:
        """The model's, while what it decides is not done."""
        run = self._runs.get(model)
        return None if run is None or run.done else run

    def was_tried(self, model: str, version: int) -> bool:
        """Whether a version was the candidate of a roll-out of the model, or answers already."""
        run = self._runs.get(model)
        if run is not None and version in run.tried:
            return True
        try:
            return self._repository.get(model).version == version
        except PenstockError:
            return False

    def share_of(self, model: str, version: int) -> float | None:
        """Percent of the model's requests that a version gets; None: no roll-out says so."""
        run = self._runs.get(model)
        if run is None or run.done or version not in (run.plan.stable, run.plan.candidate):
            return None
        share = 0.0 if run.live.shadow else run.live.share / 100
        return share if version == run.plan.candidate else 100 - share

    async def start(self, model: str, request: RolloutRequest, by: str = "") -> RolloutRun:
        """Begin a roll-out. Goes on when its caller is cancelled. `by`: who asks for it.

        Raises Conflict where one of the model goes on, InvalidRequest on a plan that can't be, or versions that don't
        answer the same requests, NotFound, Unavailable, LoadFailed.
        """
        return await self._jobs.run(self._start(model, request, by))

    def pause(self, model: str, by: str = "") -> RolloutRun:
        """Stay at the step. Raises NotFound, InvalidRequest."""
        run = self.run_of(model)
        run.rollout.pause(now_us(), by)
        self._told(run)
        return run

    def resume(self, model: str, by: str = "") -> RolloutRun:
        """Go on with the step. Raises NotFound, InvalidRequest."""
        run = self.run_of(model)
        run.rollout.resume(now_us(), by)
        run.follow_share()
        self._told(run)
        return run

    def promote(self, model: str, by: str = "") -> RolloutRun:
        """Have the candidate answer all requests from now on. Raises NotFound, InvalidRequest, and Unavailable where it
        can't."""
        run = self.run_of(model)
        if not run.over and run.live.candidate_model() is None:
            version = run.plan.candidate
            raise Unavailable(f"version {version} of model '{model}' can't take requests now")
        self._decided(run, run.rollout.promote(now_us(), by), by)
        return run

    def abort(self, model: str, reason: str) -> RolloutRun:
        """Go back to the stable version, also from a promotion that can't be carried out. Raises NotFound,
        InvalidRequest."""
        run = self.run_of(model)
        if run.rollout.status is Status.PROMOTED and not run.done:
            if run.promotion is not None:
                run.promotion.cancel()
            self._decided(run, run.rollout.recall(now_us(), reason))
        else:
            self._decided(run, run.rollout.abort(now_us(), reason))
        return run

    async def forget(self, model: str, reason: str) -> RolloutRun:
        """Abort what goes on, and know nothing of it any more. Raises NotFound, Conflict, Unavailable."""
        run = self.run_of(model)
        if not run.over:
            self.abort(model, reason)
        elif not run.done:
            raise Conflict(
                f"version {run.plan.candidate} of model '{model}' is being promoted; abort goes back from that"
            )
        await self._keeper.remove(model)
        if self._runs.get(model) is run:
            del self._runs[model]
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
            run = RolloutRun.restored(self._repository, rollout, self._decided, each)
            self._runs[each.model] = run

    def models_are_loaded(self) -> None:
        """All that could be at the start is: what is missing from now on is missed."""
        self._loaded = True
        for run in self._runs.values():
            if not run.done and self._source.serves(run.plan.model):
                self._jobs.start(self._bring(run))
        self.follow_models()

    def follow_models(self) -> None:
        """Models have changed: what has waited for them goes on, and what has lost them ends."""
        if self._closed:
            return
        self._hold()
        for run in list(self._runs.values()):
            if not run.done:
                self._follow(run)

    async def close(self) -> None:
        """Keep all that there is to keep. Models may go from now on."""
        self._closed = True
        self._absence.close()
        await self._jobs.close()
        if self._saving is not None:
            self._saving.cancel()
        for run in self._runs.values():
            run.stop()
            if run.changed and not run.done:
                self._keeper.save_soon(run.kept())
        await asyncio.to_thread(self._keeper.close)

    # ── how one begins ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self, model: str, request: RolloutRequest, by: str) -> RolloutRun:
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
        self._records.tell("rollout.begin", run.rollout, details={"by": by, "mode": run.plan.mode})
        self._records.tag(run.rollout, run.started_at)
        self._told(run)
        return run

    async def _begin(
        self, model: str, request: RolloutRequest, candidate: int, by: str
    ) -> RolloutRun:
        stable = await stable_version(
            self._repository, self._source, model, request.since, candidate
        )
        plan = request.plan(self._settings, model, stable, candidate)
        both_versions(self._repository, plan)
        alias = ""
        if self._source.serves(model):
            alias = alias_to_move(self._source, model, stable)
        run = RolloutRun(self._repository, Rollout.start(plan, now_us()), self._decided, by, alias)
        if (before := self._runs.get(model)) is not None:
            run.tried |= before.tried
        # a crash right after this finds a roll-out that has begun, and never the candidate without one
        await self._keeper.save(run.kept())
        try:
            if not self._source.serves(model):
                await self._keeper.set_default(model, stable)
            models = both_versions(self._repository, plan)
        except PenstockError:
            await self._keeper.remove(model)
            raise
        if not self._source.serves(model):
            self._repository.set_default(model, stable)
        self._runs[model] = run
        self._go(run, models)
        return run

    def _check_free(self, model: str) -> None:
        run = self._runs.get(model)
        if model in self._starting:
            raise Conflict(f"a roll-out of model '{model}' is being started")
        if run is not None and not run.done:
            raise Conflict(
                f"the roll-out of model '{model}' from version {run.plan.stable} to {run.plan.candidate} is"
                f" {run.rollout.status.value}: it has to end first"
            )
        if model in self._repository.rollouts:
            raise Conflict(f"sequences of model '{model}' go on from its last roll-out")

    def _go(self, run: RolloutRun, models: tuple[ServedModel, ServedModel]) -> None:
        """Requests are split from the next one on."""
        model = run.plan.model
        run.problem = ""
        if not run.alias and self._source.serves(model):
            run.alias = alias_to_move(self._source, model, run.plan.stable)
        run.begin(models[0], self._repository.made_of(model, run.plan.candidate))
        self._repository.roll_out(model, run.live)
        if run.over:
            # by an earlier gateway, which could not do it any more
            self._begin_promotion(run, run.by)
        self._save_later()

    # ── how it goes on ──────────────────────────────────────────────────────────────────────────────────────────────

    def _follow(self, run: RolloutRun) -> None:
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
            self._go(run, models)
        elif run.made_of != self._repository.made_of(plan.model, plan.candidate) and not run.over:
            self._decided(
                run,
                run.rollout.abort(
                    now_us(), f"version {plan.candidate} was loaded anew, from other files"
                ),
            )

    def _missing(self, run: RolloutRun, error: PenstockError, *, for_good: bool) -> None:
        """A version is not there, or is another one. At the start there is nothing yet."""
        if not self._loaded or self._closed:
            return
        run.problem = str(error)
        if run.over or not (for_good or self._absence.is_long(run)):
            return
        self._absence.over(run)
        self._decided(run, run.rollout.abort(now_us(), f"it can't go on: {error}"))

    async def _bring(self, run: RolloutRun) -> None:
        """Have a registry's version loaded again."""
        try:
            await self._source.want(run.plan.model, run.plan.candidate)
        except PenstockError as error:
            log.warning("the roll-out of model '%s' waits: %s", run.plan.model, error)
            self._missing(run, error, for_good=False)

    # ── what is decided ─────────────────────────────────────────────────────────────────────────────────────────────

    def _decided(self, run: RolloutRun, decision: Decision, by: str = "") -> None:
        """Do it at once, and tell of it then."""
        run.follow_share()
        if isinstance(decision, RollBack):
            self._roll_back(run)
        elif isinstance(decision, Promote):
            self._begin_promotion(run, by)
        self._records.decided(run.rollout, decision, now_text())
        self._told(run)

    def _roll_back(self, run: RolloutRun) -> None:
        """One switch: the next request goes to the stable version."""
        run.end()
        self._absence.over(run)
        model, candidate = run.plan.model, run.plan.candidate
        if self._source.serves(model):
            # what the registry gives next time is the older version alone
            self._jobs.start(asyncio.to_thread(self.on_withdrawn, model, candidate))
        self._leave(run, candidate)

    def _begin_promotion(self, run: RolloutRun, by: str) -> None:
        """The candidate gets all requests. The registry is told first, and what it does not take is run as before."""
        run.live.shadow = False
        run.promotion = self._jobs.start(self._promote(run, by))

    async def _promote(self, run: RolloutRun, by: str) -> None:
        plan = run.plan

        def on_problem(problem: str) -> None:
            if problem != run.problem:
                log.warning("%s", problem)
            run.problem = problem

        await promote(
            self._source,
            plan,
            run.alias,
            lambda: self._repository.get(plan.model, str(plan.candidate)),
            on_problem,
        )
        self._repository.set_default(plan.model, plan.candidate)
        if not self._source.serves(plan.model):
            self._keeper.set_default_soon(plan.model, plan.candidate)
        run.end()
        self._leave(run, plan.stable)
        self._records.promoted(run.rollout, by or run.by or "rollout", run.ended_at)
        self._told(run)

    def _leave(self, run: RolloutRun, version: int) -> None:
        """The default version answers, but for sequences that the other one has begun."""
        model = run.plan.model
        if run.begun and run.live.sequences_of(version):
            if not self._closed:
                asyncio.get_running_loop().call_later(DRAIN_S, self._leave, run, version)
            return
        if self._repository.rollouts.get(model) is run.live:
            self._repository.roll_out(model, None)
        # after a promotion too: an earlier one has had it kept
        self._source.unwant(model, version)

    def _told(self, run: RolloutRun) -> None:
        """Have it kept as it is now, and who goes by shares look again."""
        self._keeper.save_soon(run.kept())
        self.on_share()

    def _save_later(self) -> None:
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_S, self._save_changed)

    def _save_changed(self) -> None:
        self._saving = None
        going = [run for run in self._runs.values() if run.begun and not run.done]
        for run in going:
            if run.changed:
                self._keeper.save_soon(run.kept())
        if going:
            self._save_later()

    def _hold(self) -> None:
        """New versions of models that are held get no requests by themselves."""
        if not self._settings.hold or not self._loaded:
            return
        for model, version in self._repository.settled():
            held = matches(model, self._settings.hold) and not self._source.serves(model)
            if held and self._repository.default_version(model) is None:
                self._repository.expect_default(model, version)
                self._keeper.set_default_soon(model, version)


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
