"""What a run found: tables for people, JSON for programs."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock_loadtest.chaos import flatness
from penstock_loadtest.chaos.books import LOUD, Kind, Problem
from penstock_loadtest.chaos.models import TARGETS
from penstock_loadtest.chaos.run import Result

SHOWN = 40
"""Problems printed with their details; JSON has more."""


def print_result(console: Console, result: Result) -> None:
    """Tables, then all that is wrong."""
    console.print(_answers(result))
    console.print(_holdings(result))
    deeds = result.deeds
    console.print(
        f"chaos: {deeds.kills} workers killed, {deeds.reloads} loads, {deeds.cuts} connections cut, "
        f"{deeds.stalls} readers stopped",
        highlight=False,
    )
    for kind in sorted(LOUD):
        if count := result.balance.by_kind()[kind]:
            console.print(
                f"[bold yellow]{count} times {kind}[/], a known fault where it is allowed"
            )
    for problem in (*result.balance.known[:SHOWN], *result.balance.problems[:SHOWN]):
        _print_problem(console, problem)
    for fault in result.faults:
        console.print("[red]fault:[/]", Text(fault), highlight=False, soft_wrap=True)
    count = result.balance.problem_count
    verdict = (
        "[green]the books balance[/]" if result.passed else "[bold red]THE BOOKS DON'T BALANCE[/]"
    )
    console.print(
        f"{verdict}: {sum(result.balance.counts.values())} answers, {count} of them not explained, "
        f"{len(result.faults)} faults; front {result.plan.front}, seed {result.plan.seed}, "
        f"{result.plan.seconds:g} s",
        highlight=False,
    )


def _print_problem(console: Console, problem: Problem) -> None:
    console.print(
        f"[red]{problem.kind}[/] {problem.ticket} to {problem.model}, sent at {problem.sent_s:.3f} s, "
        f"{problem.took_s:.3f} s:",
        Text(problem.detail),
        highlight=False,
        soft_wrap=True,
    )


def to_json(result: Result) -> dict[str, Any]:
    """The whole result, in what JSON knows."""
    counts = [
        {"actor": actor, "model": model, "kind": kind.value, "count": count}
        for (actor, model, kind), count in sorted(result.balance.counts.items())
    ]
    return {
        "passed": result.passed,
        "front": result.plan.front,
        "seconds": result.plan.seconds,
        "seed": result.plan.seed,
        "kinds": {kind.value: n for kind, n in result.balance.by_kind().items()},
        "counts": counts,
        "problem_count": result.balance.problem_count,
        "problems": msgspec.to_builtins(result.balance.problems),
        "known_faults": msgspec.to_builtins(result.balance.known),
        "faults": result.faults,
        "server": msgspec.to_builtins(result.server),
        "holdings": [msgspec.to_builtins(row) for row in _rows(result)],
        "deeds": msgspec.to_builtins(result.deeds),
    }


def _rows(result: Result) -> list[flatness.Row]:
    return flatness.rows(result.before, result.after, result.plan.bounds)


def _answers(result: Result) -> Table:
    """Clients' answers by kind, and below them what the server counted."""
    table = Table(title="Answers, by model and kind", title_justify="left")
    table.add_column("")
    models = list(
        dict.fromkeys([*(t.name for t in TARGETS), *(m for _, m, _ in result.balance.counts)])
    )
    for name in [*models, "all"]:
        table.add_column(name, justify="right")
    kinds = result.balance.by_kind()
    for kind in Kind:
        if kinds[kind]:
            each = [result.balance.of_model(model)[kind] for model in models]
            table.add_row(kind.value, *(str(n or "") for n in each), str(kinds[kind]))
    table.add_section()
    counts = [result.server.get(model) for model in models]
    table.add_row("server: success", *(str(c.success) if c else "" for c in counts), "")
    for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER"):
        each = [c.failures[reason] if c else 0 for c in counts]
        if any(each):
            table.add_row(f"server: {reason}", *(str(n or "") for n in each), "")
    restarts = [str(c.restarts or "") if c else "" for c in counts]
    table.add_row("server: restarts", *restarts, "")
    return table


def _holdings(result: Result) -> Table:
    table = Table(title="What the server holds, without clients", title_justify="left")
    for heading in ("", "before", "after", "at most"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in _rows(result):
        mark = "" if row.flat else "[red]"
        table.add_row(row.what, str(row.before), f"{mark}{row.after}", str(row.allowed))
    return table
