"""The outcome for people (rich tables) and for programs (JSON). Ratios are the claim, absolute figures only context."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from penstock_loadtest.compare import Comparison, Spread
from penstock_loadtest.measurement import Measurement

NOISY_CORES: Final = 0.3


def print_report(
    console: Console, comparisons: Sequence[Comparison], measurements: Sequence[Measurement]
) -> None:
    """One table of ratios, and a dim one of what they were made of."""
    console.print(ratio_table(comparisons))
    console.print(absolute_table(measurements))


def ratio_table(comparisons: Sequence[Comparison]) -> Table:
    """A row for each comparison: median of the rounds (lowest to highest)."""
    table = Table(title="subject / baseline: median of rounds (lowest - highest)")
    table.add_column("case")
    table.add_column("compared")
    for heading in ("throughput", "median latency", "server CPU a request", "noise", "goal"):
        table.add_column(heading, justify="right")
    for one in comparisons:
        table.add_row(
            one.case.name,
            f"{one.subject} / {one.baseline}",
            spread_text(one.throughput),
            spread_text(one.median_latency),
            spread_text(one.server_cpu),
            noise_text(one.noise_cores),
            goal_text(one),
        )
    return table


def absolute_table(measurements: Sequence[Measurement]) -> Table:
    """A row for each turn, in the order they were run."""
    table = Table(title="each turn on this machine (context, not a claim)", style="dim")
    headings = (
        "requests/s",
        "p50 µs",
        "p99 µs",
        "mean batch",
        "server CPU µs",
        "client CPU µs",
        "cores: server",
        "client",
        "other",
        "busiest thread",
        "limit",
    )
    table.add_column("case", style="dim")
    table.add_column("who", style="dim")
    for heading in headings:
        table.add_column(heading, justify="right", style="dim")
    for one in measurements:
        table.add_row(one.case, one.contestant, *_figures(one))
    return table


def goal_text(comparison: Comparison) -> str:
    """`throughput ≥ 2 met`, in red where the median misses it; empty without a goal."""
    case, parts = comparison.case, []
    if case.throughput_goal is not None:
        met = comparison.throughput.median >= case.throughput_goal
        parts.append(_verdict(f"throughput ≥ {case.throughput_goal:g}", met))
    if case.latency_goal is not None and comparison.median_latency is not None:
        met = comparison.median_latency.median <= case.latency_goal
        parts.append(_verdict(f"latency ≤ {case.latency_goal:g}", met))
    return ", ".join(parts)


def spread_text(spread: Spread | None) -> str:
    """`2.10 (2.01 - 2.17)`."""
    if spread is None:
        return "-"
    return f"{spread.median:.2f} ({spread.low:.2f} - {spread.high:.2f})"


def noise_text(cores: float) -> str:
    """`0.12`, in yellow where it is enough to spoil a ratio on a small machine."""
    return f"[yellow]{cores:.2f}[/]" if cores > NOISY_CORES else f"{cores:.2f}"


def to_json(
    comparisons: Sequence[Comparison],
    measurements: Sequence[Measurement],
    skipped: Sequence[str],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Everything the tables show, and each round's figures."""
    return {
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": platform.machine(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "settings": settings,
        "comparisons": [_comparison_json(one) for one in comparisons],
        "skipped": list(skipped),
        "turns": [asdict(one) for one in measurements],
    }


def _comparison_json(one: Comparison) -> dict[str, Any]:
    return {
        "case": asdict(one.case) | {"name": one.case.name},
        "subject": one.subject,
        "baseline": one.baseline,
        "throughput": _spread_json(one.throughput),
        "median_latency": _spread_json(one.median_latency),
        "server_cpu": _spread_json(one.server_cpu),
        "noise_cores": one.noise_cores,
    }


def _spread_json(spread: Spread | None) -> dict[str, Any] | None:
    if spread is None:
        return None
    return {
        "median": spread.median,
        "min": spread.low,
        "max": spread.high,
        "rounds": list(spread.rounds),
    }


def _figures(one: Measurement) -> list[str]:
    return [
        f"{one.per_second:,.0f}",
        _number(one.median_us, ",.0f"),
        _number(one.p99_us, ",.0f"),
        _number(one.mean_batch, ".1f"),
        f"{one.server_cpu_us:,.1f}",
        f"{one.client_cpu_us:,.1f}",
        f"{one.server_cores:.2f}",
        f"{one.client_cores:.2f}",
        f"{one.other_cores:.2f}",
        f"{one.busiest_thread} {one.busiest_thread_cores:.0%}",
        one.limit,
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _verdict(text: str, met: bool) -> str:
    return f"[green]{text} met[/]" if met else f"[red]{text} missed[/]"
