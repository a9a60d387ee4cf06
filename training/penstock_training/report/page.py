"""The report's page: one HTML file that needs no network, no script, and reads well in light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib.resources import files

from penstock_training.export import Difference
from penstock_training.gates import Champion, Verdict
from penstock_training.held_out import HeldOut
from penstock_training.report.axes import shown
from penstock_training.report.charts import Curve, curves_chart
from penstock_training.report.classes import calibration, class_table, confusion
from penstock_training.report.statistics import accuracy_interval


@dataclass(frozen=True)
class Report:
    """All that the page says."""

    model: str
    version: int | None
    """None: it is not registered."""
    held_out: HeldOut
    losses: Sequence[Curve] = ()
    metrics: Sequence[Curve] = ()
    """What validation counted beside the loss."""
    best_step: int = 0
    verdict: Verdict | None = None
    onnx: Difference | None = None
    champion: Champion | None = None
    lineage: Mapping[str, str] = field(default_factory=dict)
    """Where it comes from, by name."""
    config: Mapping[str, str] = field(default_factory=dict)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


def render(report: Report) -> str:
    """The page."""
    style = files("penstock_training.report").joinpath("page.css").read_text()
    title = _title(report)
    body = "".join(
        (
            _header(report, title),
            _tiles(report),
            _gates(report),
            _curves(report),
            _classes(report),
            _metrics(report),
            _lineage(report),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        # nothing is fetched, whatever a class is called
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _title(report: Report) -> str:
    return report.model if report.version is None else f"{report.model}, version {report.version}"


def _header(report: Report, title: str) -> str:
    when = report.created.strftime("%d %B %Y, %H:%M UTC").lstrip("0")
    return (
        f'<header><div><p class="kicker">Evaluation report</p><h1>{escape(title)}</h1>'
        f'<p class="quiet">{when} · {report.held_out.samples} samples that the training has not seen</p></div>'
        f"{_badge(report.verdict)}</header>"
    )


def _badge(verdict: Verdict | None) -> str:
    if verdict is None:
        return '<p class="badge">not registered</p>'
    if verdict.passed and not verdict.asked:
        return '<p class="badge">no gates</p>'
    if verdict.passed:
        return '<p class="badge good">✓ all gates passed</p>'
    failed = sum(not gate.passed for gate in verdict.gates)
    return f'<p class="badge bad">✗ {failed} of {len(verdict.gates)} gates failed</p>'


def _tiles(report: Report) -> str:
    return f'<section class="tiles">{"".join(_tile(*each) for each in _numbers(report))}</section>'


def _numbers(report: Report) -> Iterable[tuple[str, str, str]]:
    """Name, value, and what it means."""
    found = report.held_out.evaluation
    if found is not None:
        low, high = accuracy_interval(found.accuracy, found.samples)
        yield "accuracy", f"{found.accuracy:.2%}", f"95 % interval {low:.1%} to {high:.1%}"
        yield "macro F1", f"{found.macro_f1:.4f}", "mean over the classes"
        yield "calibration error", f"{found.ece:.4f}", "ECE: confidence against accuracy"
        yield "log loss", f"{found.log_loss:.4f}", f"Brier score {found.brier:.4f}"
    else:
        for name, value in list(report.held_out.metrics.items())[:4]:
            yield name, shown(value), "on the test rows"
    if report.onnx is not None:
        samples = f"over {report.onnx.samples} samples"
        yield "ONNX against torch", shown(report.onnx.largest), f"largest difference {samples}"


def _tile(name: str, value: str, note: str) -> str:
    return (
        f'<div class="tile"><p class="name">{escape(name)}</p><p class="value">{escape(value)}</p>'
        f'<p class="quiet">{escape(note)}</p></div>'
    )


def _gates(report: Report) -> str:
    if report.verdict is None:
        return ""
    rows = "".join(
        f'<tr class="{"good" if gate.passed else "bad"}"><td class="mark">{"✓" if gate.passed else "✗"}</td>'
        f"<td>{escape(gate.name)}</td><td>{escape(gate.found)}</td><td>{escape(gate.expected)}</td></tr>"
        for gate in report.verdict.gates
    )
    return _section(
        "Quality gates",
        '<div class="scroll"><table class="gates"><thead><tr><th></th><th>gate</th><th>found</th><th>expected</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>",
    )


def _curves(report: Report) -> str:
    charts = [
        _figure(title, curves_chart(curves, label), _legend(curves))
        for title, label, curves in (
            ("Loss", "loss", report.losses),
            ("Validation", "value", report.metrics),
        )
        if curves
    ]
    if not charts:
        return ""
    note = f"The weights are those of step {report.best_step}, the best by validation."
    return _section("Training", f'<div class="pair">{"".join(charts)}</div>', note)


def _legend(curves: Sequence[Curve]) -> str:
    items = "".join(
        f'<span class="key s{number % 4}">{escape(curve.name)}</span>'
        for number, curve in enumerate(curves)
    )
    return f'<p class="legend">{items}</p>'


def _figure(title: str, chart: str, legend: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{legend}{chart}</figure>"


def _classes(report: Report) -> str:
    found = report.held_out.evaluation
    if found is None:
        return ""
    return (
        _section(
            "Confusion matrix",
            confusion(found),
            "Rows: what it is. Columns: what it was taken for.",
        )
        + _section("Calibration", calibration(found))
        + _section("Classes", class_table(found))
    )


def _metrics(report: Report) -> str:
    """All numbers, beside those of the champion."""
    champion = report.champion
    compared = champion is not None and not champion.problem
    head = f"<th>version {champion.version}, the champion</th>" if champion and compared else ""
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{shown(value)}</td>'
        + (
            f'<td class="number">{shown(champion.metrics.get(name, float("nan")))}</td>'
            if champion and compared
            else ""
        )
        + "</tr>"
        for name, value in report.held_out.metrics.items()
    )
    table = f"<table><thead><tr><th>metric</th><th>this version</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    note = "Both ran on the same rows." if compared else ""
    return _section("All metrics", f'<div class="scroll">{table}</div>', note)


def _lineage(report: Report) -> str:
    if not report.lineage and not report.config:
        return ""
    config = (
        f"<details><summary>Configuration</summary>{_list(report.config)}</details>"
        if report.config
        else ""
    )
    return _section("Lineage", f"{_list(report.lineage)}{config}")


def _list(values: Mapping[str, str]) -> str:
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value) or '&ndash;'}</dd>"
        for name, value in values.items()
    )
    return f"<dl>{items}</dl>"


def _section(title: str, content: str, note: str = "") -> str:
    quiet = f'<p class="quiet">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{quiet}{content}</section>"
