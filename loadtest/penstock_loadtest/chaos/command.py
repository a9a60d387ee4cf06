"""`python -m penstock_loadtest chaos`: runs a plan and shows what it found."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console

from penstock_loadtest.chaos.books import LOUD, Balance
from penstock_loadtest.chaos.report import print_result, to_json
from penstock_loadtest.chaos.run import Plan, run_chaos


def run_command(
    console: Console,
    seconds: float,
    seed: int | None,
    front: str,
    executable: tuple[str, ...],
    poison: bool,
    json_file: Path | None,
) -> bool:
    """Run, print, write JSON. Returns whether the books balance. Raises BenchmarkError without a server."""
    seed = int(time.time()) if seed is None else seed
    plan = Plan(seconds, seed, front, executable, poison)
    with console.status("starting") as status:
        result = run_chaos(plan, lambda phase, books: status.update(progress_line(phase, books)))
    print_result(console, result)
    if json_file is not None:
        json_file.write_text(json.dumps(to_json(result), indent=2) + "\n")
    return result.passed


def progress_line(phase: str, books: Balance) -> str:
    """One line for a terminal."""
    kinds = books.by_kind()
    line = f"{phase}: {sum(kinds.values())} answers, {books.open} under way"
    if known := sum(kinds[kind] for kind in LOUD):
        line += f", {known} known faults"
    if books.problem_count:
        line += f", [red]{books.problem_count} not explained[/]"
    return line
