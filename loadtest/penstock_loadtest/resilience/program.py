"""The servers take turns through each part; JSON, plots and the page's figures are made from the turns."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock_loadtest.resilience.fairness import TIMES, fair_turn
from penstock_loadtest.resilience.overload import LOADS, load_turn
from penstock_loadtest.resilience.page import fill_page
from penstock_loadtest.resilience.plots import draw_all
from penstock_loadtest.resilience.reloads import EVERY_S, reload_turn
from penstock_loadtest.resilience.report import FILE, Part, Report, read_report, write_report
from penstock_loadtest.resilience.sleeper import NAME
from penstock_loadtest.resilience.turn import Say
from penstock_loadtest.servers import Penstock, Server, Triton

SHORT_STOP: Final = "--exit-timeout-secs=1"
"""What waits at the end of a turn, no client waits for."""
TENANTS: Final = ("--tenant-header", "x-tenant")
EXPLICIT: Final = ("--model-control-mode=explicit", f"--load-model={NAME}")


@dataclass(frozen=True, slots=True)
class Resilience:
    """How long and how often all is measured."""

    servers: Sequence[Server]
    """They take turns."""
    seconds: float
    """Of a turn of goodput; one of fairness takes twice as long, since the polite tenant sends little."""
    rounds: int
    loops: int
    """Reloads of `loops`."""
    say: Say

    def run(self, parts: Sequence[Part], folder: Path) -> Report:
        """Run `parts`, and write the report into `folder` after each. Parts of an earlier report stay as they are.

        Raises BenchmarkError.
        """
        folder.mkdir(parents=True, exist_ok=True)
        report = read_report(folder) if (folder / FILE).exists() else Report({}, {})
        for part in parts:
            measure, settings = self._part(part)
            self.say(f"{part}: {settings}")
            turns = tuple(measure())
            report = msgspec.structs.replace(
                report,
                machine=_machine(),
                settings=report.settings | {part: settings},
                **{part: turns},
            )
            write_report(report, folder)
        return report

    def _part(self, part: Part) -> tuple[Callable[[], Iterator[Any]], dict[str, float]]:
        seconds, rounds = self.seconds, self.rounds
        count = max(1, round(2 * seconds / EVERY_S))
        parts: dict[Part, tuple[Callable[[], Iterator[Any]], dict[str, float]]] = {
            Part.GOODPUT: (self._goodput, {"rounds": rounds, "seconds": seconds}),
            Part.FAIRNESS: (self._fairness, {"rounds": rounds, "seconds": 2 * seconds}),
            Part.RELOADS: (
                lambda: self._reloads(rounds, count, EVERY_S),
                {"rounds": rounds, "reloads": count},
            ),
            Part.LOOPS: (
                lambda: self._reloads(1, self.loops, 0.0),
                {"rounds": 1, "reloads": self.loops},
            ),
        }
        return parts[part]

    def _with(self, control: tuple[str, ...]) -> list[Server]:
        return [_with_flags(server, control) for server in self.servers]

    def _goodput(self) -> Iterator[Any]:
        for round_ in range(self.rounds):
            for load in LOADS:
                for server in self._with(()):
                    turn = load_turn(server, round_, load, self.seconds)
                    self.say(f"{turn.server} {load:g} times: {turn.good:.1f} answers/s in time")
                    yield turn

    def _fairness(self) -> Iterator[Any]:
        for round_ in range(self.rounds):
            for times in TIMES:
                for server in self._with(()):
                    turn = fair_turn(server, round_, times, 2 * self.seconds)
                    p99 = f"polite p99 {turn.polite_p99_ms:.1f} ms"
                    self.say(f"{turn.server} greedy {times:g} times: {p99}")
                    yield turn

    def _reloads(self, rounds: int, count: int, every_s: float) -> Iterator[Any]:
        for round_ in range(rounds):
            for server in self._with(EXPLICIT):
                is_drawn = every_s > 0 and round_ == 0
                turn = reload_turn(server, round_, count, every_s, is_drawn)
                asked = turn.answered + len(turn.failures)
                failed = f"{len(turn.failures)} of {asked} requests failed"
                self.say(f"{turn.server} {len(turn.reloads)} reloads: {failed}")
                yield turn


def publish(folder: Path, page: Path, say: Say) -> None:
    """Draw the report in `folder` there, and fill in `page` where there is one. Raises BenchmarkError."""
    report = read_report(folder)
    for path in draw_all(report, folder):
        say(f"written: {path}")
    if page.exists():
        fill_page(page, report)
        say(f"filled in: {page}")


def _with_flags(server: Server, control: tuple[str, ...]) -> Server:
    """Triton knows no tenants."""
    match server:
        case Penstock():
            return replace(server, flags=(*server.flags, SHORT_STOP, *TENANTS, *control))
        case Triton():
            return replace(server, flags=(*server.flags, SHORT_STOP, *control))
    return server


def _machine() -> dict[str, str | int]:
    cores = len(os.sched_getaffinity(0))
    return {"cores": cores, "processor": platform.machine(), "python": platform.python_version()}
