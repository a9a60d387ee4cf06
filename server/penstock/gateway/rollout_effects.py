"""What is decided of a roll-out takes effect: done at once, told then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from penstock.gateway.rollout_keeper import RolloutKeeper
from penstock.gateway.rollout_promotion import promote
from penstock.gateway.rollout_records import RolloutRecords
from penstock.gateway.rollout_run import RolloutRun, now_text
from penstock.gateway.rollout_versions import VersionSource
from penstock.gateway.rollout_watch import Absence
from penstock.repository.jobs import Jobs
from penstock.repository.repository import ModelRepository
from penstock.rollouts.decisions import Decision, Promote, RollBack

log = logging.getLogger(__name__)

DRAIN_S: Final = 2.0
"""From one look whether sequences have ended to the next."""


class RolloutEffects:
    """Of all roll-outs."""

    def __init__(
        self,
        repository: ModelRepository,
        keeper: RolloutKeeper,
        source: VersionSource,
        records: RolloutRecords,
        absence: Absence,
        jobs: Jobs,
    ) -> None:
        self._repository = repository
        self._keeper = keeper
        self._source = source
        self._records = records
        self._absence = absence
        self._jobs = jobs
        self._closed = False
        self.on_share: Callable[[], None] = lambda: None
        """Called when a version's share of the requests has changed."""
        self.on_withdrawn: Callable[[str, int], None] = lambda *_: None
        """Called, in a thread, when a registry's version was tried and is not to be served."""

    def begun(self, run: RolloutRun, by: str) -> None:
        """Tell of it. It holds already."""
        self._records.tell("rollout.begin", run.rollout, details={"by": by, "mode": run.plan.mode})
        self._records.tag(run.rollout, run.started_at)
        self.changed(run)

    def decided(self, run: RolloutRun, decision: Decision, by: str = "") -> None:
        """Do it at once, and tell of it then."""
        run.follow_share()
        if isinstance(decision, RollBack):
            self._roll_back(run)
        elif isinstance(decision, Promote):
            self.promote(run, by)
        self._records.decided(run.rollout, decision, now_text())
        self.changed(run)

    def promote(self, run: RolloutRun, by: str) -> None:
        """The candidate gets all requests. The registry is told first, and what it does not take is run as before."""
        run.live.shadow = False
        run.promotion = self._jobs.start(self._promote(run, by))

    def changed(self, run: RolloutRun) -> None:
        """Have it kept as it is now, and who goes by shares look again."""
        self._keeper.save_soon(run.kept())
        self.on_share()

    def close(self) -> None:
        """Models may go from now on: wait for no sequences any more."""
        self._closed = True

    def _roll_back(self, run: RolloutRun) -> None:
        """One switch: the next request goes to the stable version."""
        run.end()
        self._absence.over(run)
        model, candidate = run.plan.model, run.plan.candidate
        if self._source.serves(model):
            # what the registry gives next time is the older version alone
            self._jobs.start(asyncio.to_thread(self.on_withdrawn, model, candidate))
        self._leave(run, candidate)

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
        self.changed(run)

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
