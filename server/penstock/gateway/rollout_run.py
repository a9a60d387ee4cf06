"""A roll-out that is under way: what is seen goes to its judgement, and what that decides to who does it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from penstock.gateway.live_rollout import LiveRollout, Models
from penstock.gateway.rollout_sight import RolloutCounts
from penstock.gateway.rollout_store import KeptRollout
from penstock.gateway.rollout_view import RolloutView
from penstock.repository.alarm import Alarm
from penstock.repository.served_model import ServedModel
from penstock.rollouts.decisions import Decision, RolloutReport
from penstock.rollouts.observation import Observation, ShadowPair
from penstock.rollouts.plan import RolloutPlan
from penstock.rollouts.state import Rollout

log = logging.getLogger(__name__)

OnDecision = Callable[["RolloutRun", Decision], None]


class RolloutRun:
    """One. All of it runs on the event loop. It is the judge of its `live`, which has a part in requests from `begin`
    on."""

    def __init__(
        self, models: Models, rollout: Rollout, on_decision: OnDecision, by: str, alias: str = ""
    ) -> None:
        """`by`: who has begun it. `alias`: of the stable version, by which clients of a registry know it."""
        self.rollout: Final = rollout
        self.live: Final = LiveRollout(models, rollout.plan, self)
        self.by = by
        self.alias = alias
        self.started_at = now_text()
        self.ended_at = ""
        self.problem = ""
        """What is in the way of going on; empty: nothing."""
        self.begun = False
        """Requests are split. A roll-out that was taken over waits for its models first."""
        self.promotion: asyncio.Task[None] | None = None
        """Carries a promotion out, or tries to."""
        self.tried = {rollout.plan.candidate}
        """Versions that this roll-out, and those before it, have tried."""
        self.made_of = b""
        """What the candidate was made of when it began."""
        self.changed = True
        """Since it was kept last."""
        self._on_decision = on_decision
        self._loop = asyncio.get_running_loop()
        self._due = Alarm(self._loop, self._soon)
        self._ticking = False

    @classmethod
    def restored(
        cls, models: Models, rollout: Rollout, on_decision: OnDecision, kept: KeptRollout
    ) -> RolloutRun:
        """As an earlier gateway has left it."""
        run = cls(models, rollout, on_decision, kept.by, kept.alias)
        run.started_at, run.ended_at = kept.started_at, kept.ended_at
        run.problem = kept.problem
        run.live.counts = kept.counts
        run.tried.update(kept.tried)
        return run

    @property
    def plan(self) -> RolloutPlan:
        """What it is to do."""
        return self.rollout.plan

    @property
    def over(self) -> bool:
        """It is decided how it ends."""
        return self.rollout.status.over

    @property
    def done(self) -> bool:
        """It is over, and what was decided is done."""
        return bool(self.ended_at)

    def begin(self, stable: ServedModel, made_of: bytes) -> None:
        """Requests come from now on."""
        self.live.begin(stable)
        self.made_of = made_of
        self.begun = True
        self.follow_share()

    def follow_share(self) -> None:
        """Split requests as it was decided last."""
        self.live.share = self.rollout.share
        self.changed = True
        due_us = self.rollout.due_us
        if due_us is not None:
            self._due.at(due_us, now_us())

    def end(self) -> None:
        """All is done."""
        self.ended_at = now_text()
        self.problem = ""
        self.stop()

    def stop(self) -> None:
        """Decide nothing any more."""
        self._due.cancel()

    @property
    def report(self) -> RolloutReport:
        """What its judgement tells of it."""
        return self.rollout.report(now_us())

    @property
    def counts(self) -> RolloutCounts:
        """What became of requests."""
        return self.live.counts

    def view(self) -> RolloutView:
        """As clients see it."""
        return RolloutView(
            **msgspec.structs.asdict(self.report),
            counts=self.counts,
            plan=self.plan,
            by=self.by,
            started_at=self.started_at,
            ended_at=self.ended_at,
            problem=self.problem,
        )

    def kept(self) -> KeptRollout:
        """All that has to outlive the server."""
        self.changed = False
        return KeptRollout(
            model=self.plan.model,
            state=msgspec.Raw(self.rollout.to_json(now_us())),
            counts=self.counts,
            by=self.by,
            started_at=self.started_at,
            ended_at=self.ended_at,
            problem=self.problem,
            alias=self.alias,
            tried=tuple(sorted(self.tried)),
        )

    def observe(self, observation: Observation) -> None:
        """As Judge."""
        self._judge(lambda: self.rollout.observe(observation, now_us()))

    def pair(self, pair: ShadowPair) -> None:
        """As Judge."""
        self._judge(lambda: self.rollout.pair(pair, now_us()))

    def _judge(self, hear: Callable[[], bool]) -> None:
        """What only watches must not cost anybody an answer."""
        self.changed = True
        try:
            if hear():
                self._soon()
        except Exception:
            log.exception("the roll-out of model '%s' could not judge a request", self.plan.model)

    def _soon(self) -> None:
        """Not while an answer is on its way."""
        if not self._ticking:
            self._ticking = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._ticking = False
        if self.over:
            return
        decision = self.rollout.tick(now_us())
        self.follow_share()
        if decision is not None:
            self._on_decision(self, decision)


def now_us() -> float:
    """On the monotonic clock."""
    return time.monotonic_ns() / 1000


def now_text() -> str:
    """The wall clock, as RFC 3339."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
