"""A roll-out for a person: where it is, what both versions did, and what the guards have found."""

from __future__ import annotations

from collections.abc import Iterable
from math import log

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.gateway.rollout_view import RolloutView
from penstock.rollouts.decisions import GuardReport, RollBack, Status

COLORS = {
    Status.RUNNING: "cyan",
    Status.PAUSED: "yellow",
    Status.WAITING: "yellow",
    Status.PROMOTED: "green",
    Status.ROLLED_BACK: "red",
    Status.ABORTED: "red",
}
EVENTS = 6
"""That are shown, the latest."""
BAR = 12


def as_report(view: RolloutView) -> RenderableType:
    """All of it."""
    parts: list[RenderableType] = [_title(view), _steps(view)]
    if view.problem:
        parts.append(Text(view.problem, "red"))
    if isinstance(view.decision, RollBack):
        parts.append(Text(view.decision.reason, "red"))
    parts.append(_versions(view))
    if view.guards:
        parts.append(_guards(view.guards))
    parts.append(_events(view))
    return Group(*parts)


def as_table(views: Iterable[RolloutView]) -> Table:
    """One line each."""
    table = Table("model", "from", "to", "mode", "status", "share", "begun", box=box.SIMPLE)
    for view in views:
        table.add_row(
            Text(view.model),
            str(view.stable),
            str(view.candidate),
            view.mode,
            Text(_status(view), COLORS[view.status]),
            f"{view.share / 100:g} %",
            view.started_at,
        )
    return table


def one_line(view: RolloutView) -> str:
    """For where there is no terminal."""
    text = (
        f"{view.model} {view.stable} → {view.candidate}: {_status(view)}, {view.share / 100:g} %,"
        f" {view.candidate_requests} requests, {view.candidate_errors} errors,"
        f" {view.counts.fallbacks} fallbacks"
    )
    why = view.decision.reason if isinstance(view.decision, RollBack) else view.problem
    return f"{text}: {why}" if why else text


def _status(view: RolloutView) -> str:
    name = view.status.value.replace("_", " ")
    return f"{name}, not done yet" if view.status.over and not view.ended_at else name


def _title(view: RolloutView) -> Text:
    title = Text.assemble((f"{view.model} {view.stable} → {view.candidate}", "bold"), "  ")
    title.append(_status(view), COLORS[view.status])
    title.append(f"  {view.mode}")
    if view.by:
        title.append(f"  by {view.by}")
    return title


def _steps(view: RolloutView) -> Text:
    line = Text()
    for index, percent in enumerate(view.steps):
        now = index == view.step
        line.append(f" {percent:g} % ", "reverse" if now else "dim" if index > view.step else "")
    if not view.status.over:
        left = [
            f"for {view.step_left_s:.0f} s" if view.step_left_s else "",
            f"{view.step_left_requests:,} requests" if view.step_left_requests else "",
            f"{view.step_left_windows:,} comparisons" if view.step_left_windows else "",
        ]
        if any(left):
            line.append(f"   {', '.join(filter(None, left))} more")
    return line


def _versions(view: RolloutView) -> Table:
    counts = view.counts
    table = Table("version", "looked at", "errors", "NaN", "share", box=box.SIMPLE)
    candidate = view.share / 100
    stable = 100.0 if view.mode == "shadow" else 100 - candidate
    for name, each, share in (
        (f"{view.stable} stable", counts.stable, stable),
        (f"{view.candidate} candidate", counts.candidate, candidate),
    ):
        table.add_row(
            name, f"{each.requests:,}", f"{each.errors:,}", f"{each.non_finite:,}", f"{share:g} %"
        )
    told = [f"{counts.fallbacks:,} fell back", f"{counts.seen_failures:,} failures seen by clients"]
    if view.mode == "shadow":
        told = [f"{counts.mismatches:,} mismatches", f"{counts.dropped_copies:,} copies dropped"]
    table.caption = ", ".join(told)
    return table


def _guards(guards: Iterable[GuardReport]) -> Table:
    table = Table("guard", "stable", "candidate", "evidence", "", box=box.SIMPLE)
    for guard in guards:
        table.add_row(
            guard.name.replace("_", " "),
            _number(guard.stable),
            _number(guard.candidate),
            _bar(guard),
            Text(guard.text, overflow="ellipsis", no_wrap=True),
        )
    return table


def _bar(guard: GuardReport) -> Text:
    """How near it is to rolling back: evidence multiplies, so its logarithm is shown."""
    part = (
        0.0
        if guard.bound <= 1 or guard.evidence <= 1
        else min(1.0, log(guard.evidence) / log(guard.bound))
    )
    full = round(part * BAR)
    color = "red" if part >= 1 else "yellow" if part > 0.5 else "green"
    return Text.assemble(("█" * full, color), ("·" * (BAR - full), "dim"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _events(view: RolloutView) -> Table:
    table = Table("after", "event", "share", "", box=box.SIMPLE, show_header=False)
    for event in view.events[-EVENTS:]:
        table.add_row(
            f"{event.after_s:.0f} s",
            event.what.replace("_", " "),
            f"{event.share / 100:g} %",
            Text(event.text, overflow="fold"),
        )
    return table
