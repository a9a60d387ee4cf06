"""Steps follow each other when they have lasted and seen enough; a guard or a person ends the roll-out; it survives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.errors import InvalidRequest
from penstock.rollouts.decisions import (
    Advance,
    Decision,
    Hold,
    Promote,
    RollBack,
    RolloutReport,
    Status,
)
from penstock.rollouts.observation import CLIENT, Observation, ShadowPair
from penstock.rollouts.plan import RolloutPlan, plan_of
from penstock.rollouts.split import WHOLE
from penstock.rollouts.state import MAX_EVENTS, Rollout

SECOND_US = 1e6


def plan(**given: Any) -> RolloutPlan:
    """Three steps of ten seconds and ten requests, and however few comparisons, unless something else is given."""
    guards = {"min_windows": 0, **given.pop("guards", {})}
    return plan_of(
        {
            **{"model": "m", "stable": 1, "candidate": 2},
            **{"steps": [1, 50, 100], "step_s": 10, "min_requests": 10},
            **{"guards": guards, **given},
        }
    )


@dataclass
class Drive:
    """A roll-out and its clock."""

    rollout: Rollout
    now_us: float = 0.0
    decisions: list[Decision] = field(default_factory=list)

    def answer(self, version: int, count: int = 1, every_us: float = 1e5, **what: Any) -> None:
        """So many answers, until something is decided."""
        seen = Observation(version, 1_000.0, **what)
        for _ in range(count):
            self.now_us += every_us
            if self.rollout.observe(seen, self.now_us) and self.tick() is not None:
                return

    def tick(self, after_s: float = 0.0) -> Decision | None:
        """What is due then."""
        self.now_us += after_s * SECOND_US
        decision = self.rollout.tick(self.now_us)
        if decision is not None:
            self.decisions.append(decision)
        return decision

    def restart(self) -> None:
        """Of the server, whose clock begins anew."""
        data = self.rollout.to_json(self.now_us)
        self.now_us = 5.0
        self.rollout = Rollout.from_json(data, self.now_us)

    @property
    def report(self) -> RolloutReport:
        return self.rollout.report(self.now_us)


@pytest.fixture
def drive() -> Drive:
    return Drive(Rollout.start(plan(), 0.0))


def test_good_candidate_goes_through_all_steps_and_is_promoted(drive: Drive) -> None:
    shares = [drive.rollout.share]
    while not drive.rollout.status.over:
        drive.answer(1, 3)
        drive.answer(2, 3)
        if shares[-1] != drive.rollout.share:
            shares.append(drive.rollout.share)
    assert shares == [100, 5_000, WHOLE]
    assert drive.decisions == [Advance(1, 5_000), Advance(2, WHOLE), Promote()]
    assert (drive.rollout.status, drive.rollout.decision) == (Status.PROMOTED, Promote())
    assert [event.what for event in drive.report.events] == [
        *("started", "advanced", "advanced", "promoted"),
    ]
    assert drive.rollout.promoted_by == ""
    # nothing counts any more
    drive.answer(2, 5, ok=False)
    assert drive.report.candidate_errors == 0
    assert drive.tick(100) is None


def test_step_waits_for_its_time_and_its_requests(drive: Drive) -> None:
    drive.answer(2, 9)
    assert drive.rollout.due_us is None
    assert drive.tick(100) is None
    assert drive.report.step_left_requests == 1
    drive.answer(2)
    assert drive.decisions == [Advance(1, 5_000)]
    # requests of the step before don't count
    assert drive.report.step_left_requests == 10
    drive.answer(2, 10)
    assert drive.tick() is None
    assert drive.report.step_left_s == pytest.approx(9)
    due_us = drive.rollout.due_us
    assert due_us is not None
    drive.now_us = due_us
    assert drive.tick() == Advance(2, WHOLE)


def test_step_waits_until_enough_was_compared() -> None:
    quick = plan(steps=[50, 100], step_s=0.1, min_requests=1, guards={"min_windows": 3})
    drive = Drive(Rollout.start(quick, 0.0))
    drive.answer(2, 500)
    # nothing to compare them with
    assert (drive.rollout.share, drive.report.step_left_windows) == (5_000, 3)
    assert drive.rollout.due_us is None
    while drive.rollout.share == 5_000:
        drive.answer(1, every_us=1e4)
        drive.answer(2, every_us=1e4)
        if drive.report.step == 0:
            errors = next(guard for guard in drive.report.guards if guard.name == "errors")
            assert drive.report.step_left_windows == 3 - errors.windows > 0
    assert drive.decisions == [Advance(1, WHOLE)]
    # there the stable version answers nothing
    assert drive.report.step_left_windows == 0
    drive.answer(2, 20)
    assert drive.rollout.status is Status.PROMOTED


def test_comparisons_of_the_step_before_do_not_count() -> None:
    quick = plan(steps=[40, 50], step_s=0.1, min_requests=1, guards={"min_windows": 3})
    drive = Drive(Rollout.start(quick, 0.0))
    while not drive.decisions:
        drive.answer(1, every_us=1e4)
        drive.answer(2, every_us=1e4)
    drive.restart()
    assert drive.report.step_left_windows == 3
    drive.answer(2, 100)
    assert drive.rollout.status is Status.RUNNING


def test_where_no_guard_compares_nothing_is_waited_for() -> None:
    names = ("error_rate", "p99_ratio", "drift", "mismatches", "non_finite")
    guards = {"min_windows": 3, **dict.fromkeys(names)}
    drive = Drive(Rollout.start(plan(steps=[50], step_s=0.1, guards=guards), 0.0))
    drive.answer(2, 20)
    assert drive.rollout.status is Status.PROMOTED


def test_few_ids_do_not_hold_a_step_for_ever() -> None:
    """Of their latencies and outputs only the first are compared."""
    quick = plan(steps=[50], step_s=0.1, guards={"min_windows": 3})
    drive = Drive(Rollout.start(quick, 0.0))
    for _ in range(500):
        drive.answer(1, every_us=1e4, unit=1)
        drive.answer(2, every_us=1e4, unit=2)
    assert drive.rollout.status is Status.PROMOTED


def test_candidate_that_fails_is_taken_back_within_seconds(drive: Drive) -> None:
    drive.answer(1, 10)
    drive.answer(2, 100, ok=False, error_kind="internal")
    decision = drive.rollout.decision
    assert isinstance(decision, RollBack)
    assert decision.guard == "failing"
    assert decision.requests == drive.report.candidate_requests <= 15
    assert "version 2 of 'm'" in decision.reason
    assert decision.evidence >= drive.report.guards[0].bound
    assert (drive.rollout.status, drive.rollout.share) == (Status.ROLLED_BACK, 0)
    assert drive.report.events[-1].text == decision.reason


def test_answers_that_are_not_numbers_are_failures_too(drive: Drive) -> None:
    drive.answer(2, 100, non_finite=True)
    assert isinstance(drive.rollout.decision, RollBack)
    assert drive.report.candidate_non_finite <= 15


@pytest.mark.parametrize(
    "harmless",
    [
        {"ok": False, "error_kind": CLIENT},
        {"ok": False, "stable_failed": True},
        {"ok": True},
    ],
)
def test_what_is_not_the_candidates_fault_does_not_take_it_back(
    harmless: dict[str, Any],
) -> None:
    drive = Drive(Rollout.start(plan(steps=[100], promote=False), 0.0))
    drive.answer(2, 200, **harmless)
    drive.answer(2, 200, **harmless)
    assert drive.rollout.status is Status.WAITING


def test_failures_of_less_than_a_second_do_not_take_it_back(drive: Drive) -> None:
    drive.answer(2, 500, every_us=2_000, ok=False)
    assert drive.report.candidate_errors == 500
    assert drive.rollout.decision is None


def test_outage_of_both_does_not_take_it_back(drive: Drive) -> None:
    for _ in range(190):
        drive.answer(1, 1, every_us=5e4, ok=False)
        drive.answer(2, 1, every_us=5e4, ok=False)
    assert drive.rollout.share == 5_000
    assert all(isinstance(decision, Advance) for decision in drive.decisions)


def test_single_client_can_not_make_the_candidate_look_bad() -> None:
    drive = Drive(Rollout.start(plan(steps=[50], min_requests=100_000), 0.0))
    for number in range(2_000):
        drive.answer(1, unit=2 * number + 1)
        drive.answer(2, unit=2 * number + 2)
        drive.answer(2, ok=False, unit=77)
    assert drive.rollout.decision is None
    assert drive.report.uncounted > 1_000


def test_plan_without_promotion_waits_for_somebody(drive: Drive) -> None:
    drive = Drive(Rollout.start(plan(steps=[100], promote=False), 0.0))
    drive.answer(2, 200)
    assert drive.decisions == [Hold()]
    assert (drive.rollout.status, drive.rollout.share) == (Status.WAITING, WHOLE)
    # it is still watched
    drive.answer(2, 200, ok=False)
    assert drive.rollout.status is Status.ROLLED_BACK


def test_pause_stops_the_steps_and_not_the_guards(drive: Drive) -> None:
    drive.answer(2, 20)
    drive.rollout.pause(drive.now_us, "ada")
    assert drive.rollout.due_us is None
    drive.answer(2, 20)
    assert drive.tick(100) is None
    drive.rollout.resume(drive.now_us)
    assert drive.report.step_left_s == pytest.approx(8)
    drive.rollout.pause(drive.now_us)
    drive.answer(2, 300, ok=False)
    assert drive.rollout.status is Status.ROLLED_BACK
    assert [event.what for event in drive.report.events] == [
        *("started", "paused", "resumed", "paused", "rolled_back"),
    ]
    assert drive.report.events[1].text == "ada"


def test_by_hand(drive: Drive) -> None:
    assert drive.rollout.promote(0.0, "ada") == Promote(by_hand=True)
    drive.restart()
    assert drive.rollout.promoted_by == "ada"
    assert drive.rollout.share == WHOLE
    other = Rollout.start(plan(), 0.0)
    assert other.abort(0.0, "too early") == RollBack("", "too early")
    assert (other.status, other.share) == (Status.ABORTED, 0)


def test_what_is_not_possible_now_is_refused(drive: Drive) -> None:
    with pytest.raises(InvalidRequest, match="the roll-out of 'm' can't be resumed: it is running"):
        drive.rollout.resume(0.0)
    drive.rollout.abort(0.0)
    for act in (
        *(drive.rollout.pause, drive.rollout.resume),
        *(drive.rollout.promote, drive.rollout.abort),
    ):
        with pytest.raises(InvalidRequest, match="it is aborted"):
            act(0.0)


def test_other_versions_are_not_its_business(drive: Drive) -> None:
    drive.answer(3, 100, ok=False)
    assert (drive.report.stable_requests, drive.report.candidate_requests) == (0, 0)


def test_restart_keeps_step_time_and_evidence(drive: Drive) -> None:
    drive.answer(1, 10)
    drive.answer(2, 9, ok=False)
    before = drive.report
    drive.restart()
    after = drive.report
    assert msgspec.structs.replace(after, events=before.events) == before
    assert [event.what for event in after.events] == ["started", "restored"]
    drive.answer(2, 6, ok=False)
    assert drive.rollout.status is Status.ROLLED_BACK
    drive.restart()
    assert drive.rollout.status is Status.ROLLED_BACK
    assert drive.rollout.decision == drive.decisions[-1]


def test_state_that_is_none_is_refused() -> None:
    for data in (b"", b"{}", b'{"plan": 1}'):
        with pytest.raises(InvalidRequest, match="saved state of a roll-out: "):
            Rollout.from_json(data, 0.0)


def test_events_are_bounded_and_keep_the_start(drive: Drive) -> None:
    for _ in range(MAX_EVENTS):
        drive.rollout.pause(0.0)
        drive.rollout.resume(0.0)
    assert len(drive.report.events) == MAX_EVENTS
    assert drive.report.events[0].what == "started"


def test_shadow_finds_outputs_that_differ() -> None:
    drive = Drive(Rollout.start(plan(mode="shadow", steps=[100], min_requests=100_000), 0.0))
    for number in range(2_000):
        drive.now_us += 5e4
        unit = number % 3 + 1  # the same clients again and again: both versions have them
        pair = ShadowPair(
            Observation(1, 1_000.0, unit=unit),
            Observation(2, 1_000.0, unit=unit),
            mismatch=number % 10 == 0,
        )
        if drive.rollout.pair(pair, drive.now_us):
            drive.tick()
    decision = drive.rollout.decision
    assert isinstance(decision, RollBack)
    assert decision.guard == "mismatches"
    assert decision.requests < 1_500


def test_shadow_of_a_stable_version_that_fails_itself() -> None:
    drive = Drive(Rollout.start(plan(mode="shadow", steps=[100], promote=False), 0.0))
    failed = ShadowPair(Observation(1, 0.0, ok=False), Observation(2, 0.0, ok=False))
    for _ in range(300):
        drive.now_us += 1e5
        if drive.rollout.pair(failed, drive.now_us):
            drive.tick()
    assert drive.rollout.status is Status.WAITING
    assert drive.report.stable_errors == drive.report.candidate_errors == 300


def test_report_is_json() -> None:
    drive = Drive(Rollout.start(plan(), 0.0))
    drive.answer(2, 100, ok=False)
    report = msgspec.json.decode(msgspec.json.encode(drive.report))
    assert report["status"] == "rolled_back"
    assert report["decision"]["type"] == "RollBack"
    assert {guard["name"] for guard in report["guards"]} == {
        *("failing", "errors", "non_finite", "latency", "drift"),
    }


def test_guards_that_are_off_are_not_there_and_leave_their_chance_to_the_others() -> None:
    off = {"error_rate": None, "p99_ratio": None, "drift": None, "non_finite": None}
    drive = Drive(Rollout.start(plan(guards={**off, "false_alarm": 0.02}), 0.0))
    assert [(guard.name, guard.bound) for guard in drive.report.guards] == [("failing", 50)]
    drive.answer(1, 5, ok=False)
    drive.answer(2, 5, summary=3)
    nothing = Rollout.start(plan(guards={**off, "failing": None}), 0.0)
    assert nothing.report(0.0).guards == ()


@pytest.mark.parametrize("mode", ["canary", "shadow"])
def test_chances_of_all_guards_are_what_is_stated_together(mode: str) -> None:
    report = Rollout.start(plan(mode=mode, guards={"false_alarm": 0.004}), 0.0).report(0.0)
    assert sum(1 / guard.bound for guard in report.guards) == pytest.approx(0.004)


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes in whatever order: shares only rise while it runs, and what is over stays so."""

    def __init__(self) -> None:
        super().__init__()
        self.drive = Drive(Rollout.start(plan(min_requests=3), 0.0))
        self.share = 0
        self.over: Decision | None = None

    @rule(
        version=st.sampled_from([1, 2]),
        count=st.integers(1, 40),
        ok=st.booleans(),
        non_finite=st.booleans(),
        summary=st.one_of(st.none(), st.integers(0, 20), st.floats(-1, 1)),
        unit=st.integers(0, 3),
    )
    def answer(self, version: int, count: int, **what: Any) -> None:
        self.drive.answer(version, count, **what)

    @rule(after_s=st.floats(0, 20))
    def time_passes(self, after_s: float) -> None:
        self.drive.tick(after_s)

    @rule()
    def restart(self) -> None:
        self.drive.restart()

    @precondition(lambda self: self.drive.rollout.status is Status.RUNNING)
    @rule()
    def pause(self) -> None:
        self.drive.rollout.pause(self.drive.now_us)

    @precondition(lambda self: self.drive.rollout.status is Status.PAUSED)
    @rule()
    def resume(self) -> None:
        self.drive.rollout.resume(self.drive.now_us)

    @invariant()
    def steps_only_rise(self) -> None:
        rollout = self.drive.rollout
        if rollout.status.over:
            assert rollout.share == (WHOLE if rollout.status is Status.PROMOTED else 0)
            assert self.over in (None, rollout.decision)
            self.over = rollout.decision
        else:
            assert self.over is None
            assert rollout.share >= self.share
            self.share = rollout.share

    @invariant()
    def report_adds_up(self) -> None:
        report = self.drive.report
        assert report.candidate_errors + report.uncounted <= 3 * report.candidate_requests
        assert all(guard.evidence >= 0 for guard in report.guards)
        assert (
            Rollout.from_json(self.drive.rollout.to_json(self.drive.now_us), self.drive.now_us)
            .report(self.drive.now_us)
            .guards
            == report.guards
        )


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
