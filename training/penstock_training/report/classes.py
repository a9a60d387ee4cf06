"""The parts of a report that only classifiers have: what was taken for what, how surely, and each class's scores."""

from __future__ import annotations

import math
from html import escape
from typing import Final

from penstock_training.report.charts import reliability_chart
from penstock_training.report.statistics import ClassScores, Evaluation

MOST_CLASSES: Final = 32
"""Of which a matrix can be read; of more, only the mistakes are listed."""
MOST_MISTAKES: Final = 10


def confusion(found: Evaluation) -> str:
    """The matrix, and what was confused most often."""
    mistakes = _mistakes(found)
    if len(found.class_names) > MOST_CLASSES:
        return mistakes
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in found.class_names)
    rows = "".join(_row(found, at, name) for at, name in enumerate(found.class_names))
    table = f'<table class="matrix"><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="beside"><div class="scroll">{table}</div>{mistakes}</div>'


def calibration(found: Evaluation) -> str:
    """Is it right as often as it is sure?"""
    words = (
        f"<p>Expected calibration error <b>{found.ece:.4f}</b>, largest of a bar "
        f"<b>{found.max_calibration_error:.4f}</b>.</p>"
        f"<p>{_leaning(found)}</p>"
        "<p>Each bar is the predictions of one range of confidence, and as high as the share of them that is right. "
        "Of a calibrated model it ends at the diagonal.</p>"
        '<p class="legend"><span class="key bar">accuracy</span><span class="key over">overconfident</span>'
        '<span class="key under">underconfident</span></p>'
    )
    return (
        f'<div class="beside"><figure>{reliability_chart(found)}</figure><div>{words}</div></div>'
    )


def class_table(found: Evaluation) -> str:
    """Precision, recall and F1 of each."""
    rows = "".join(_class_row(each) for each in found.classes)
    return (
        '<div class="scroll"><table class="classes"><thead><tr><th>class</th><th>precision</th><th>recall</th>'
        "<th>F1</th><th>samples</th><th>predicted</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(found: Evaluation, at: int, name: str) -> str:
    counts = found.confusion[at]
    total = int(counts.sum())
    cells = "".join(
        _cell(int(count), total, name, other, right=at == number)
        for number, (count, other) in enumerate(zip(counts, found.class_names, strict=True))
    )
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'


def _cell(count: int, total: int, name: str, other: str, *, right: bool) -> str:
    share = count / total if total else 0.0
    kind = "right" if right else "wrong"
    if not count:
        return f'<td class="{kind} none">·</td>'
    # the eye has to find single mistakes among hundreds
    depth = round(100 * (share if right else math.sqrt(share)))
    strong = " strong" if depth >= 55 else ""
    hint = f"{name} taken for {other}: {count} of {total}, {share:.1%}"
    return (
        f'<td class="{kind}{strong}" style="--depth:{depth}%" title="{escape(hint)}">{count}</td>'
    )


def _mistakes(found: Evaluation) -> str:
    pairs = found.confused(MOST_MISTAKES)
    if not pairs:
        return "<p>Nothing was mistaken for anything else.</p>"
    items = "".join(
        f"<li><b>{escape(true)}</b> taken for <b>{escape(taken)}</b> <span>&times; {count}</span></li>"
        for true, taken, count in pairs
    )
    wrong = int((found.predicted != found.labels).sum())
    return (
        f'<div><h3>{wrong} of {found.samples} are wrong</h3><ul class="mistakes">{items}</ul></div>'
    )


def _leaning(found: Evaluation) -> str:
    gap = float(found.confidence.mean()) - found.accuracy
    if abs(gap) < 0.005:
        return "On the whole it is as confident as it is right."
    much = f"{abs(gap):.1%}".replace("%", " percentage points")
    return (
        f"On the whole it is {much} overconfident."
        if gap > 0
        else f"On the whole it is {much} underconfident."
    )


def _class_row(each: ClassScores) -> str:
    scores = "".join(_score(value) for value in (each.precision, each.recall, each.f1))
    return (
        f'<tr><th scope="row">{escape(each.name)}</th>{scores}'
        f'<td class="number">{each.support}</td><td class="number">{each.predicted}</td></tr>'
    )


def _score(value: float) -> str:
    if math.isnan(value):
        return '<td class="score">&ndash;</td>'
    # exactly one shows as such, all others show what is missing
    text = "1" if value == 1 else f"{min(value, 0.999):.3f}"
    return f'<td class="score"><span class="meter" style="--share:{value:.4f}"></span>{text}</td>'
