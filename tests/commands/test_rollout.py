"""`penstock rollout`: what it refuses, and what it shows. A running server has its own tests in tests/e2e."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from penstock.cli import main
from penstock.commands.rollout_view import as_report, as_table, one_line
from penstock.gateway.rollout_sight import RolloutCounts, VersionCounts
from penstock.gateway.rollout_view import RolloutView
from penstock.rollouts.decisions import Event, GuardReport, RollBack, Status
from penstock.rollouts.plan import RolloutPlan


def view(**changes: Any) -> RolloutView:
    """Of a roll-out in its second step."""
    fields: dict[str, Any] = {
        "model": "m[1]",
        "stable": 3,
        "candidate": 4,
        "mode": "canary",
        "status": Status.RUNNING,
        "step": 1,
        "steps": (1.0, 10.0, 100.0),
        "share": 1000,
        "after_s": 90.0,
        "step_left_s": 12.4,
        "step_left_requests": 1234,
        "step_left_windows": 4,
        "stable_requests": 9000,
        "candidate_requests": 1000,
        "stable_errors": 1,
        "candidate_errors": 2,
        "candidate_non_finite": 0,
        "uncounted": 0,
        "false_alarm": 0.01,
        "guards": (
            GuardReport("errors", 20.0, 400.0, 7, 0.0001, 0.002, "0.2 % were errors"),
            GuardReport("non_finite", 0.5, 600.0, 7, None, None, "nothing to compare yet"),
        ),
        "events": (Event(0.0, "started", 100), Event(60.0, "advanced", 1000, "step 2 of 3")),
        "decision": None,
        "counts": RolloutCounts(
            stable=VersionCounts(9000, 1), candidate=VersionCounts(1000, 2), fallbacks=2
        ),
        "plan": RolloutPlan("m[1]", 3, 4),
        "by": "key:ada",
    }
    return RolloutView(**{**fields, **changes})


def shown(what: Any) -> str:
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_a_report_has_what_there_is_to_know() -> None:
    text = shown(as_report(view(problem="version 4 is not at ready state")))
    for part in (
        "m[1] 3 → 4  running  canary  by key:ada",
        "for 12 s, 1,234 requests, 4 comparisons more",
        "version 4 is not at ready state",
        "9,000",
        "90 %",
        "2 fell back, 0 failures seen by clients",
        "non finite",
        "0.2 % were errors",
        "step 2 of 3",
    ):
        assert part in text, text
    # half of the way, for evidence multiplies
    assert "█" * 6 + "·" * 6 in text


def test_the_end_is_told_with_its_reason() -> None:
    rolled_back = RollBack("errors", "version 4 of 'm' fails", 500.0, 77)
    over = view(status=Status.ROLLED_BACK, decision=rolled_back, share=0, ended_at="2026-11-28")
    assert "version 4 of 'm' fails" in shown(as_report(over))
    assert one_line(over) == (
        "m[1] 3 → 4: rolled back, 0 %, 1000 requests, 2 errors, 2 fallbacks: version 4 of 'm' fails"
    )
    promoting = view(status=Status.PROMOTED, share=10_000, problem="the registry is away")
    assert "promoted, not done yet" in one_line(promoting)
    assert "the registry is away" in one_line(promoting)
    table = shown(as_table([over, promoting]))
    assert "rolled back" in table and "not done yet" in table


def test_a_shadow_has_mismatches() -> None:
    counts = RolloutCounts(mismatches=3, dropped_copies=4)
    text = shown(as_report(view(mode="shadow", counts=counts)))
    assert "3 mismatches, 4 copies dropped" in text
    assert "100 %" in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["start", "m"], "--to"),
        (["start", "m", "--to=2", "--steps=50,10"], "percentages that rise"),
        (["start", "m", "--to=2", "--steps=few"], "'few' is not a list of percentages"),
        (["start", "m", "--to=2", "--guard=drift"], "expected NAME=NUMBER or NAME=off"),
        (["start", "m", "--to=2", "--guard=drift=low"], "expected NAME=NUMBER or NAME=off"),
        (["start", "m", "--to=2", "--guard==1"], "expected NAME=NUMBER or NAME=off"),
    ],
)
def test_what_can_not_be_meant_is_refused_before_a_server_is_asked(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollout", *words, "--url=http://127.0.0.1:9"]) in (1, 2)
    assert text in capsys.readouterr().err


def test_where_no_server_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "status", "m", "--url=http://127.0.0.1:9"]) == 1
    assert "no server answers" in capsys.readouterr().err
