"""The state machine of one roll-out: its steps, what ends it, and what it has seen. All times are the caller's."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.errors import InvalidRequest
from penstock.rollouts.decisions import (
    Advance,
    Decision,
    Event,
    Hold,
    Promote,
    RollBack,
    RolloutReport,
    Status,
)
from penstock.rollouts.observation import Observation, ShadowPair
from penstock.rollouts.plan import RolloutPlan
from penstock.rollouts.split import WHOLE, share_of_percent
from penstock.rollouts.watch import Watch, WatchState

MAX_EVENTS: Final = 200


class Clock(msgspec.Struct):
    """Time since the roll-out began. A server that is down counts as no time."""

    now_us: float
    """By the caller's clock, when the others were last brought up to it."""
    after_us: float = 0.0
    step_us: float = 0.0
    """In this step, without pauses."""


class RolloutState(msgspec.Struct):
    """All that survives a restart."""

    plan: RolloutPlan
    clock: Clock
    watch: WatchState
    status: Status = Status.RUNNING
    step: int = 0
    events: list[Event] = []
    decision: Decision | None = None


class Rollout:
    """One roll-out. It decides and remembers; who calls it routes requests by `share` and carries out what is decided.

    `observe` and `pair` are called for every request that was split or copied, and `tick` when they return True and at
    `due_us`. `now_us` is of any monotonic clock, after a restart of another one. A decision takes effect here at once:
    `share` and `status` are the new ones when `tick` returns.
    """

    def __init__(self, state: RolloutState) -> None:
        """By `start` or `from_json`."""
        self._state = state
        self._watch = Watch(state.plan, state.watch)
        self._stable = state.plan.stable
        self._candidate = state.plan.candidate
        self._over = state.status.over
        self._alarmed = False

    @classmethod
    def start(cls, plan: RolloutPlan, now_us: float) -> Rollout:
        """The first step begins."""
        rollout = cls(RolloutState(plan, Clock(now_us), Watch.fresh(plan)))
        rollout._watch.begin_step(rollout.share, now_us)
        rollout._note("started")
        return rollout

    @classmethod
    def from_json(cls, data: bytes, now_us: float) -> Rollout:
        """Goes on where `to_json` was called, with all evidence. Raises InvalidRequest where the data is not its."""
        try:
            state = msgspec.json.decode(data, type=RolloutState)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise InvalidRequest(f"saved state of a roll-out: {error}") from None
        state.clock.now_us = now_us
        rollout = cls(state)
        rollout._watch.reopen(rollout.share, now_us)
        if not rollout._over:
            rollout._note("restored")
        return rollout

    def to_json(self, now_us: float) -> bytes:
        """All of it, some 10 kB. The open window is not worth saving."""
        self._advance_clock(now_us)
        self._state.watch = self._watch.saved()
        return msgspec.json.encode(self._state)

    @property
    def plan(self) -> RolloutPlan:
        """What it is to do."""
        return self._state.plan

    @property
    def status(self) -> Status:
        """How it is."""
        return self._state.status

    @property
    def decision(self) -> Decision | None:
        """How it ended: RollBack or Promote; None while it goes on."""
        return self._state.decision

    @property
    def promoted_by(self) -> str:
        """Who has promoted the candidate by hand; empty: its steps have, or nobody was asked who he is."""
        decision = self._state.decision
        if not isinstance(decision, Promote) or not decision.by_hand:
            return ""
        return next(event.text for event in self._state.events if event.what == "promoted")

    @property
    def salt(self) -> str:
        """For `unit_of`: with each version that is tried, other clients are the first."""
        return f"{self.plan.model}/{self.plan.candidate}"

    @property
    def share(self) -> int:
        """Of the requests that go to the candidate, in hundredths of a percent; in shadow mode, that are copied to it.

        After promotion: all of them. After roll-back: none.
        """
        if self._state.status is Status.PROMOTED:
            return WHOLE
        return 0 if self._over else share_of_percent(self.plan.steps[self._state.step])

    def observe(self, seen: Observation, now_us: float) -> bool:
        """One request was answered, or has failed. True: call `tick`, something is due."""
        if self._over:
            return False
        if seen.version == self._stable:
            self._watch.stable(seen, now_us)
            return False
        if seen.version != self._candidate:
            return False
        return self._due(self._watch.candidate(seen, now_us), now_us)

    def pair(self, pair: ShadowPair, now_us: float) -> bool:
        """Both versions have run one request, in shadow mode. True: call `tick`, something is due."""
        if self._over:
            return False
        return self._due(self._watch.pair(pair, now_us), now_us)

    def _due(self, alarmed: bool, now_us: float) -> bool:
        self._alarmed = self._alarmed or alarmed
        return self._alarmed or (
            self._state.status is Status.RUNNING
            and now_us >= self._step_ends_us()
            and self._watch.has_seen_enough
        )

    @property
    def due_us(self) -> float | None:
        """When `tick` has to be called if no observation asks for it before; None: only then."""
        if self._state.status is not Status.RUNNING:
            return None
        return self._step_ends_us() if self._watch.has_seen_enough else None

    def tick(self, now_us: float) -> Decision | None:
        """What is due now: at most one decision, which has taken effect here. None: nothing."""
        self._advance_clock(now_us)
        if self._over:
            return None
        # another window may just have ended
        if self._watch.tick(now_us) or self._alarmed:
            guard = self._watch.alarm()
            if guard is not None:
                report = guard.report()
                requests = self._watch.totals.candidate
                reason = f"version {self.plan.candidate} of '{self.plan.model}': {report.text}"
                return self._roll_back(
                    RollBack(guard.name, reason, report.evidence, requests), Status.ROLLED_BACK
                )
        if not self._due(False, now_us):
            return None
        return self._next_step(now_us)

    def _next_step(self, now_us: float) -> Decision:
        state = self._state
        if state.step + 1 < len(self.plan.steps):
            state.step += 1
            state.clock.step_us = 0.0
            self._watch.begin_step(self.share, now_us)
            self._note("advanced", f"step {state.step + 1} of {len(self.plan.steps)}")
            return Advance(state.step, self.share)
        if self.plan.promote:
            return self._promote(Promote(), "all steps went well")
        state.status = Status.WAITING
        self._note("waiting", "all steps went well; not promoted by itself")
        return Hold()

    def pause(self, now_us: float, who: str = "") -> None:
        """Stay at this step. Guards go on. Raises InvalidRequest unless it is running."""
        self._expect("paused", Status.RUNNING)
        self._advance_clock(now_us)
        self._state.status = Status.PAUSED
        self._note("paused", who)

    def resume(self, now_us: float, who: str = "") -> None:
        """Go on with the step. Raises InvalidRequest unless it is paused."""
        self._expect("resumed", Status.PAUSED)
        self._advance_clock(now_us)
        self._state.status = Status.RUNNING
        self._note("resumed", who)

    def promote(self, now_us: float, who: str = "") -> Promote:
        """Promote the candidate now. Raises InvalidRequest when the roll-out is over."""
        self._expect("promoted", Status.RUNNING, Status.PAUSED, Status.WAITING)
        self._advance_clock(now_us)
        return self._promote(Promote(by_hand=True), who)

    def abort(self, now_us: float, reason: str = "") -> RollBack:
        """Go back to the stable version now. Raises InvalidRequest when the roll-out is over."""
        self._expect("aborted", Status.RUNNING, Status.PAUSED, Status.WAITING)
        self._advance_clock(now_us)
        requests = self._watch.totals.candidate
        return self._roll_back(RollBack("", reason or "aborted", 0.0, requests), Status.ABORTED)

    def recall(self, now_us: float, reason: str = "") -> RollBack:
        """Go back after all, where the promotion could not be carried out. Raises InvalidRequest unless it is one."""
        self._expect("recalled", Status.PROMOTED)
        self._advance_clock(now_us)
        requests = self._watch.totals.candidate
        return self._roll_back(RollBack("", reason or "recalled", 0.0, requests), Status.ABORTED)

    def report(self, now_us: float) -> RolloutReport:
        """What it tells of itself."""
        self._advance_clock(now_us)
        state, plan, totals = self._state, self.plan, self._watch.totals
        over = self._over
        return RolloutReport(
            model=plan.model,
            stable=plan.stable,
            candidate=plan.candidate,
            mode=plan.mode,
            status=state.status,
            step=state.step,
            steps=plan.steps,
            share=self.share,
            after_s=state.clock.after_us / 1e6,
            step_left_s=0.0 if over else max(0.0, plan.step_s - state.clock.step_us / 1e6),
            step_left_requests=0 if over else self._watch.requests_left,
            step_left_windows=0 if over else self._watch.windows_left,
            stable_requests=totals.stable,
            candidate_requests=totals.candidate,
            stable_errors=totals.stable_errors,
            candidate_errors=totals.candidate_errors,
            candidate_non_finite=totals.candidate_non_finite,
            uncounted=totals.uncounted,
            false_alarm=plan.guards.false_alarm,
            guards=tuple(guard.report() for guard in self._watch.guards.all),
            events=tuple(state.events),
            decision=state.decision,
        )

    def _step_ends_us(self) -> float:
        clock = self._state.clock
        return clock.now_us + self.plan.step_s * 1e6 - clock.step_us

    def _advance_clock(self, now_us: float) -> None:
        clock = self._state.clock
        passed_us = max(0.0, now_us - clock.now_us)
        clock.now_us += passed_us
        if self._over:
            return
        clock.after_us += passed_us
        if self._state.status is Status.RUNNING:
            clock.step_us += passed_us

    def _promote(self, decision: Promote, text: str) -> Promote:
        self._end(Status.PROMOTED, decision)
        self._note("promoted", text)
        return decision

    def _roll_back(self, decision: RollBack, status: Status) -> RollBack:
        self._end(status, decision)
        self._note(status.value, decision.reason)
        return decision

    def _end(self, status: Status, decision: Decision) -> None:
        self._state.status = status
        self._state.decision = decision
        self._over = True

    def _expect(self, done: str, *states: Status) -> None:
        status = self._state.status
        if status not in states:
            raise InvalidRequest(
                f"the roll-out of '{self.plan.model}' can't be {done}: it is {status.value}"
            )

    def _note(self, what: str, text: str = "") -> None:
        events = self._state.events
        if len(events) >= MAX_EVENTS:
            del events[1]  # the start stays
        events.append(Event(self._state.clock.after_us / 1e6, what, self.share, text))
