"""Draws a report's plots as SVG, or as PNG where a file's name says so."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from penstock_loadtest.resilience import fairness, overload
from penstock_loadtest.resilience.figures import (
    MIB,
    OVERLOAD,
    Curve,
    by_server,
    fairness_curve,
    goodput_curve,
    memory_growth_mib,
)
from penstock_loadtest.resilience.report import FairTurn, LoadTurn, ReloadTurn, Report

LOOKS: Final[dict[str, dict[str, Any]]] = {
    "penstock": {"color": "#0b62c4", "marker": "o", "label": "Penstock"},
    "triton": {"color": "#d1650b", "marker": "s", "label": "Triton"},
}
STYLE: Final[dict[Any, Any]] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.size": 11,
    "grid.color": "#dde1e6",
    "legend.frameon": False,
    "lines.linewidth": 2,
    # else every run writes other ids
    "svg.hashsalt": "penstock",
}
WIDE: Final = (8.0, 4.5)
FAILED: Final = "#c1121f"
FAIR_GOAL: Final = 1.5


def draw_all(report: Report, folder: Path, suffix: str = ".svg") -> list[Path]:
    """Draw the parts that were run; the files."""
    drawings: dict[str, tuple[Callable[[Any, Path], None], Sequence[Any]]] = {
        "goodput": (draw_goodput, report.goodput),
        "memory": (draw_memory, [turn for turn in report.goodput if turn.load == OVERLOAD]),
        "fairness": (draw_fairness, report.fairness),
        "reloads": (draw_reloads, report.reloads),
        "loops": (draw_loops, report.loops),
    }
    made = []
    for name, (draw, turns) in drawings.items():
        if turns:
            draw(turns, folder / f"{name}{suffix}")
            made.append(folder / f"{name}{suffix}")
    return made


def draw_goodput(turns: Sequence[LoadTurn], path: Path) -> None:
    """Goodput against offered load."""
    with _figure(path) as figure:
        axes = figure.subplots()
        for server, own in by_server(turns).items():
            _line(axes, server, goodput_curve(own))
        axes.axvline(1.0, color="#8b949e", linestyle=":", linewidth=1.5)
        axes.annotate(
            "the model's capacity",
            (1.02, 0.62),
            color="#57606a",
            xycoords=("data", "axes fraction"),
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set(xlim=0, ylim=(0, 1.08))
        patience_ms = overload.PATIENCE_S * 1e3
        axes.set_xlabel("offered load (multiple of the model's capacity)")
        axes.set_ylabel(f"answers within {patience_ms:.0f} ms (% of own peak)")
        axes.set_title("Goodput against offered load")
        axes.legend(loc="center right")


def draw_memory(turns: Sequence[LoadTurn], path: Path) -> None:
    """Growth of resident memory at the overload, a line for each round."""
    with _figure(path) as figure:
        axes = figure.subplots()
        for server, own in by_server(turns).items():
            for index, turn in enumerate(own):
                at_s, mib = zip(*memory_growth_mib(turn), strict=True)
                label = _look(server)["label"] if index == 0 else None
                axes.plot(at_s, mib, color=_look(server)["color"], label=label)
        axes.set(xlim=0)
        # a flat line shall look flat
        axes.set_ylim(min(-5.0, axes.get_ylim()[0]), max(50.0, axes.get_ylim()[1]))
        axes.set_xlabel("time since the load began (s)")
        axes.set_ylabel("growth of resident memory (MiB)")
        axes.set_title(f"Memory at {OVERLOAD:g} times the capacity")
        axes.legend(loc="upper left")


def draw_fairness(turns: Sequence[FairTurn], path: Path) -> None:
    """The polite tenant's p99 against the greedy one's rate."""
    with _figure(path) as figure:
        axes = figure.subplots()
        for server, own in by_server(turns).items():
            _line(axes, server, fairness_curve(own))
        alone = [turn.polite_p99_ms for turn in turns if not turn.times]
        _level(axes, FAIR_GOAL, f"the goal: {FAIR_GOAL:g} times")
        if alone:
            ceiling = fairness.PATIENCE_S * 1e3 / statistics.median(alone)
            _level(axes, ceiling, f"no answer in {fairness.PATIENCE_S:g} s")
        axes.set(xscale="log", yscale="log")
        axes.set_ylim(min(0.8, axes.get_ylim()[0]), 100)
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.set_xlabel("the greedy tenant's rate (multiple of the polite one's)")
        axes.set_ylabel("polite tenant's p99 (multiple of that alone)")
        axes.set_title("A polite tenant beside a greedy one")
        axes.legend(loc="center left")


def draw_reloads(turns: Sequence[ReloadTurn], path: Path) -> None:
    """Latency of each request of a server's first round over time, with the reloads; a panel for each server."""
    firsts = [own[0] for own in by_server(turns).values()]
    with _figure(path, (8.0, 1.2 + 2.6 * len(firsts))) as figure:
        panels = figure.subplots(len(firsts), sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, turn in zip(panels, firsts, strict=True):
            _reload_panel(axes, turn)
        panels[-1].set_xlabel("time (s)")
        panels[0].set_title("Each request while the model is reloaded every second")


def draw_loops(turns: Sequence[ReloadTurn], path: Path) -> None:
    """Memory of the gateway process and descriptors of all processes over the reloads."""
    with _figure(path) as figure:
        left, right = figure.subplots(1, 2)
        for server, own in by_server(turns).items():
            for turn in own[:1]:
                look = _look(server) | {"marker": None}
                left.plot([held.gateway_bytes / MIB for held in turn.holdings], **look)
                right.plot([held.descriptors for held in turn.holdings], **look)
        left.set(xlim=0, ylim=0, xlabel="reloads", title="Gateway's resident memory (MiB)")
        right.set(xlim=0, ylim=0, xlabel="reloads", title="Descriptors, all processes")
        left.legend(loc="lower right")


def _reload_panel(axes: Axes, turn: ReloadTurn) -> None:
    for index, reload in enumerate(turn.reloads):
        label = "a reload, from request to answer" if index == 0 else None
        axes.axvspan(reload.began_s, reload.ended_s, color="#e6eaf0", linewidth=0, label=label)
        axes.axvline(reload.began_s, color="#8b949e", linewidth=0.8)
    look: dict[str, Any] = _look(turn.server) | {"s": 6, "linewidths": 0}
    look["label"] += ": a request"
    at_s, ms = zip(*turn.points, strict=True)
    # thousands of points are smaller as pixels, also inside an SVG
    axes.scatter(at_s, ms, rasterized=True, zorder=3, **look)
    if turn.failures:
        at_s, ms, _ = zip(*turn.failures, strict=True)
        axes.scatter(at_s, ms, color=FAILED, marker="x", label="failed", zorder=4)
    axes.set(yscale="log", xlim=0, ylabel="latency (ms)")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(loc="upper left", ncols=3, fontsize=9, markerscale=2)
    axes.set_ylim(10, max(400.0, axes.get_ylim()[1]))


def _line(axes: Axes, server: str, curve: Curve) -> None:
    """Median of the rounds, and a band from the lowest to the highest."""
    look, xs = _look(server), list(curve)
    axes.plot(xs, [curve[x].median for x in xs], **look)
    lows, highs = [curve[x].low for x in xs], [curve[x].high for x in xs]
    axes.fill_between(xs, lows, highs, color=look["color"], alpha=0.2, linewidth=0)


def _level(axes: Axes, y: float, text: str) -> None:
    axes.axhline(y, color="#8b949e", linestyle=":", linewidth=1.5)
    axes.annotate(
        text,
        (0.01, y),
        (0, 3),
        color="#57606a",
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
    )


def _look(server: str) -> dict[str, Any]:
    return LOOKS.get(server, {"label": server, "marker": "^", "color": "#57606a"})


def _plain(value: float, _: object = None) -> str:
    return f"{value:g}"


@contextmanager
def _figure(path: Path, size: tuple[float, float] = WIDE) -> Iterator[Figure]:
    """A figure that is written to `path` at the end. It needs no display and joins no global list of figures."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(size, layout="constrained")
        yield figure
        # a date would make every run's file another
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=120, metadata=metadata)
