"""The figures in docs/resilience.md: each part is a piece of Markdown made from a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from penstock_loadtest.compare import Spread
from penstock_loadtest.marked import fill, table
from penstock_loadtest.resilience.figures import (
    MIB,
    OVERLOAD,
    by_server,
    fairness_curve,
    goodput_curve,
    growth_at_overload,
    unanswered_parts,
)
from penstock_loadtest.resilience.report import Part, Report, read_report

NAMES: Final = {"penstock": "Penstock", "triton": "Triton"}


def method(report: Report) -> str:
    """How long, how often, on what."""
    machine = report.machine
    rows = [
        (part, *(_setting(settings, key) for key in ("rounds", "seconds", "reloads")))
        for part, settings in report.settings.items()
    ]
    head = f"Measured on {machine['cores']} cores ({machine['processor']})."
    return f"{head}\n\n{table(('part', 'rounds', 'seconds a turn', 'reloads a turn'), rows)}"


def goodput_table(report: Report) -> str:
    """A row for each load: each server's goodput as part of its own peak."""
    curves = {name: goodput_curve(turns) for name, turns in by_server(report.goodput).items()}
    loads = sorted({load for curve in curves.values() for load in curve})
    rows = [
        (f"{load:g}", *(_percent(curve.get(load)) for curve in curves.values())) for load in loads
    ]
    return table(("offered load", *(_name(server) for server in curves)), rows)


def memory_table(report: Report) -> str:
    """A row for each server: how much memory grew."""
    rows = []
    for server, turns in by_server(report.goodput).items():
        growth = growth_at_overload(turns)
        if growth is not None:
            rows.append((_name(server), *(_spread(one, ".1f") for one in growth)))
    heads = (f"growth at {OVERLOAD:g} times the capacity (MiB)", "of it in the second half")
    return table(("server", *heads), rows)


def fairness_table(report: Report) -> str:
    """A row for each rate of the greedy tenant: p99 as multiple of that alone, and what was not answered."""
    servers = by_server(report.fairness)
    p99s = {name: fairness_curve(turns) for name, turns in servers.items()}
    lost = {name: unanswered_parts(turns) for name, turns in servers.items()}
    heads = ["greedy tenant sends"]
    for name in map(_name, servers):
        heads += [f"{name}: p99 / p99 alone", f"{name}: not answered"]
    rows = []
    for times in sorted({times for curve in p99s.values() for times in curve}):
        cells = [f"{times:g} times more"]
        for server in servers:
            cells += [
                _spread(p99s[server].get(times), ".2f"),
                _percent(lost[server].get(times)),
            ]
        rows.append(cells)
    return table(heads, rows)


def reloads_table(report: Report) -> str:
    """A row for each server: all its rounds together."""
    rows = [
        (
            _name(server),
            str(sum(len(turn.reloads) for turn in turns)),
            f"{sum(t.answered + len(t.failures) for t in turns):,}",
            str(sum(len(turn.failures) for turn in turns)),
            *(
                _spread(Spread(tuple(getattr(turn, figure) for turn in turns)), ".0f")
                for figure in ("p50_ms", "p99_ms", "slowest_ms")
            ),
        )
        for server, turns in by_server(report.reloads).items()
    ]
    heads = ("server", "reloads", "requests", "failed", "p50 (ms)", "p99 (ms)", "slowest (ms)")
    return table(heads, rows)


def loops_table(report: Report) -> str:
    """A row for each server and time: what it holds before, in the middle of, and after all reloads."""
    rows = []
    for server, (turn, *_) in by_server(report.loops).items():
        requests = turn.answered + len(turn.failures)
        failed = f"{len(turn.failures)} of {requests:,}"
        for index in (0, len(turn.reloads) // 2, len(turn.reloads)):
            held = turn.holdings[index]
            rows.append(
                (
                    _name(server),
                    str(index),
                    failed if index == len(turn.reloads) else "",
                    f"{held.gateway_bytes / MIB:.0f}",
                    str(held.descriptors),
                    str(held.processes),
                    str(held.shared_memory_files),
                )
            )
    heads = ("server", "after reloads", "failed requests", "gateway's memory (MiB)")
    return table((*heads, "descriptors", "processes", "files in /dev/shm"), rows)


def client_table(report: Report) -> str:
    """A row for each part: the worst that a client did in any turn."""
    rows = []
    for part in Part:
        checks = [turn.client for turn in getattr(report, part)]
        if checks:
            late = max(check.lateness_ms for check in checks)
            cores = max(check.cores for check in checks)
            rows.append((part, f"{late:.1f} ms", f"{cores:.0%}"))
    return table(("part", "sent late (p99, worst turn)", "of one core (worst turn)"), rows)


MAKERS: Final[dict[str, Callable[[Report], str]]] = {
    "method": method,
    "goodput": goodput_table,
    "memory": memory_table,
    "fairness": fairness_table,
    "reloads": reloads_table,
    "loops": loops_table,
    "client": client_table,
}


def part_of(folder: Path, name: str) -> str:
    """One part of the page from the report in `folder`. Raises BenchmarkError where there is none."""
    return MAKERS[name](read_report(folder))


def fill_page(page: Path, report: Report) -> None:
    """Write all parts anew. Raises ValueError where the page lacks a part's marks."""
    text = page.read_text()
    for name, make in MAKERS.items():
        text = fill(text, name, make(report))
    page.write_text(text)


def _setting(settings: Mapping[str, float], key: str) -> str:
    return f"{settings[key]:g}" if key in settings else ""


def _name(server: str) -> str:
    return NAMES.get(server, server)


def _percent(spread: Spread | None) -> str:
    return "-" if spread is None else _text(spread, ".0%")


def _spread(spread: Spread | None, form: str) -> str:
    return "-" if spread is None else _text(spread, form)


def _text(spread: Spread, form: str) -> str:
    """The median round, and in brackets the lowest and highest where they read otherwise."""
    median, low, high = (format(value, form) for value in (spread.median, spread.low, spread.high))
    return median if low == median == high else f"{median} ({low} - {high})"
