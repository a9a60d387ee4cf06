"""The charts of a report as SVG: colours are the page's, so that they fit light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from penstock_training.report.axes import Scale, scale_of, shown
from penstock_training.report.statistics import Bin, Evaluation

MAX_POINTS: Final = 400
"""Of a curve: more than one for each pixel says nothing."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart."""

    name: str
    points: Points
    """(step, value), by step."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the axes are."""

    width: int
    height: int
    left: int = 58
    right: int = 16
    top: int = 12
    bottom: int = 40

    @property
    def x(self) -> tuple[int, int]:
        return self.left, self.width - self.right

    @property
    def y(self) -> tuple[int, int]:
        """The first one is below."""
        return self.height - self.bottom, self.top


def curves_chart(curves: Sequence[Curve], y_label: str) -> str:
    """Values by step, one line each."""
    frame = _Frame(480, 280)
    thinned = [Curve(each.name, thin(each.points)) for each in curves]
    points = [point for each in thinned for point in each.points]
    x = scale_of((step for step, _ in points), *frame.x)
    y = scale_of((value for _, value in points), *frame.y, log=True)
    lines = "".join(_line(each, number, x, y) for number, each in enumerate(thinned))
    note = f"{y_label}, logarithmic" if y.log else y_label
    label = f"{y_label} by step: {', '.join(each.name for each in curves)}"
    return _svg(frame, _axes(frame, x, y, "step", note) + lines, label)


def reliability_chart(evaluation: Evaluation) -> str:
    """How often the model is right, by how sure it is; below, how many predictions that is."""
    frame = _Frame(420, 300)
    x, y = Scale(0, 1, *frame.x), Scale(0, 1, *frame.y)
    (x0, x1), (y0, y1) = frame.x, frame.y
    bars = "".join(_bar(each, x, y) for each in evaluation.bins if each.count)
    diagonal = f'<line class="ideal" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>'
    axes = _axes(frame, x, y, "", "accuracy")
    label = f"reliability diagram, expected calibration error {evaluation.ece:.4f}"
    return _svg(frame, axes + bars + diagonal, label) + _histogram(evaluation.bins)


def thin(points: Points) -> Points:
    """The same curve with fewer points: of each stretch the lowest and the highest one."""
    finite = [point for point in points if math.isfinite(point[1])]
    if len(finite) <= MAX_POINTS:
        return finite
    size = math.ceil(len(finite) / (MAX_POINTS // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(finite), size):
        stretch = finite[start : start + size]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def _line(curve: Curve, number: int, x: Scale, y: Scale) -> str:
    places = [(x.at(step), y.at(value)) for step, value in curve.points]
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
    # what a pointer rests on says its numbers
    hints = "".join(
        f'<circle cx="{left:.1f}" cy="{top:.1f}" r="5" class="hint">'
        f"<title>{escape(curve.name)}, step {shown(step)}: {shown(value)}</title></circle>"
        for (left, top), (step, value) in zip(places, curve.points, strict=True)
    )
    alone = "" if len(places) > 1 else " dot"
    return f'<g class="series s{number % 4}{alone}"><polyline points="{path}"/>{hints}</g>'


def _bar(found: Bin, x: Scale, y: Scale) -> str:
    left, width = x.at(found.low) + 1, x.at(found.high) - x.at(found.low) - 2
    low, high = sorted((y.at(found.accuracy), y.at(found.confidence)), reverse=True)
    kind = "over" if found.confidence > found.accuracy else "under"
    hint = (
        f"confidence {found.low:.2f} to {found.high:.2f}: {found.count} samples, "
        f"mean confidence {found.confidence:.3f}, accuracy {found.accuracy:.3f}"
    )
    place = f'x="{left:.1f}" width="{width:.1f}"'
    return (
        f"<g><title>{hint}</title>"
        f'<rect class="bar" {place} y="{low:.1f}" height="{y.at(0) - low:.1f}"/>'
        f'<rect class="gap {kind}" {place} y="{high:.1f}" height="{low - high:.1f}"/></g>'
    )


def _histogram(bins: Sequence[Bin]) -> str:
    frame = _Frame(420, 110, top=6)
    most = max(each.count for each in bins)
    x, y = Scale(0, 1, *frame.x), Scale(0, most, *frame.y)
    floor = frame.y[0]
    bars = "".join(
        f'<rect class="count" x="{x.at(each.low) + 1:.1f}" y="{y.at(each.count):.1f}" '
        f'width="{x.at(each.high) - x.at(each.low) - 2:.1f}" height="{floor - y.at(each.count):.1f}">'
        f"<title>{each.count} samples</title></rect>"
        for each in bins
        if each.count
    )
    axes = _axes(frame, x, y, "confidence", "samples", rows=2)
    return _svg(frame, axes + bars, "samples by confidence")


def _axes(frame: _Frame, x: Scale, y: Scale, x_label: str, y_label: str, rows: int = 6) -> str:
    (x0, x1), (y0, y1) = frame.x, frame.y
    parts = []
    for value in y.ticks(rows):
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{x0}" x2="{x1}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="end" x="{x0 - 8}" y="{at + 4:.1f}">{shown(value)}</text>')
    for value in x.ticks():
        at = x.at(value)
        parts.append(f'<text class="middle" x="{at:.1f}" y="{y0 + 17}">{shown(value)}</text>')
    parts.append(f'<line class="axis" x1="{x0}" x2="{x1}" y1="{y0}" y2="{y0}"/>')
    if x_label:
        middle = (x0 + x1) / 2
        parts.append(
            f'<text class="middle label" x="{middle}" y="{y0 + 34}">{escape(x_label)}</text>'
        )
    middle = (y0 + y1) / 2
    parts.append(
        f'<text class="middle label" transform="translate(13 {middle}) rotate(-90)">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _svg(frame: _Frame, content: str, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" aria-label="{escape(label)}">'
        f"{content}</svg>"
    )
