"""The report's page: whole, self-contained, and safe whatever classes are called."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from browser import browser, chromium
from penstock_training.export import Difference
from penstock_training.gates import Champion, GateResult, Verdict
from penstock_training.held_out import HeldOut
from penstock_training.report.axes import scale_of, shown, ticks
from penstock_training.report.charts import MAX_POINTS, Curve, thin
from penstock_training.report.curves import losses, read_series, validation_metrics
from penstock_training.report.page import Report, render
from penstock_training.report.statistics import Evaluation, softmax

HOSTILE = "</td><script>alert(1)</script>"
WHEN = datetime(2026, 11, 2, 8, 5, tzinfo=UTC)


def evaluation(names: list[str], samples: int = 200) -> HeldOut:
    chance = np.random.default_rng(1)
    labels = chance.integers(len(names), size=samples)
    logits = chance.normal(size=(samples, len(names)))
    logits[np.arange(samples), labels] += 3
    found = Evaluation(labels, softmax(logits), names)
    return HeldOut(samples, found.metrics, found)


def report_of(names: list[str]) -> Report:
    held_out = evaluation(names)
    verdict = Verdict(
        (
            GateResult("accuracy", "at least 0.98", "0.91", False),
            GateResult("ece", "at most 0.05", "0.01", True),
        )
    )
    return Report(
        model="digits",
        version=4,
        held_out=held_out,
        losses=[Curve("train/loss", [(float(s), 1 / s) for s in range(1, 1000)])],
        metrics=[Curve("validation/accuracy", [(10.0, 0.5)])],
        best_step=990,
        verdict=verdict,
        onnx=Difference(204, 1.2e-7, 2e-7, {"P": 1.2e-7}),
        champion=Champion(3, {"accuracy": 0.9}),
        lineage={"penstock.git.revision": "c0ffee", HOSTILE: HOSTILE},
        config={"optimizer.learning_rate": "0.001"},
        created=WHEN,
    )


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.partition("<body>")[2]))


def test_it_says_all_that_is_known() -> None:
    text = text_of(render(report_of(["one", "two", "three"])))
    for words in (
        "digits, version 4",
        "2 November 2026, 08:05 UTC · 200 samples",
        "✗ 1 of 2 gates failed",
        "accuracy 0.91 at least 0.98",
        "The weights are those of step 990",
        "version 3, the champion",
        "penstock.git.revision c0ffee",
        "optimizer.learning_rate 0.001",
        "largest difference over 204 samples",
        "Expected calibration error",
    ):
        assert words in text


def test_names_of_classes_are_no_html_and_nothing_is_fetched() -> None:
    page = render(report_of(["one", HOSTILE]))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 5
    assert not re.search(r"(?:src|href|url)\s*[=(]", page)
    assert "default-src 'none'" in page


def test_many_classes_are_listed_by_their_mistakes() -> None:
    page = render(report_of([f"class {at}" for at in range(60)]))
    assert 'class="matrix"' not in page
    assert " taken for " in page


def test_what_is_no_classifier_has_a_report_too() -> None:
    page = render(Report("prices", None, HeldOut(7, {"mae": 1.5}, None), created=WHEN))
    text = text_of(page)
    assert "Confusion" not in text
    assert "not registered" in text
    assert "mae 1.5 on the test rows" in text


def test_the_browser_shows_it_in_light_and_dark(tmp_path: Path) -> None:
    if chromium() is None:
        pytest.skip("Chromium is not installed")
    path = tmp_path / "report.html"
    path.write_text(render(report_of(["one", "two", HOSTILE])))
    shots = []
    with browser() as page:
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            page.call("Emulation.setEmulatedMedia", features=features)
            page.open(path.as_uri())
            page.wait_for("document.readyState === 'complete'")
            shots.append(page.run("getComputedStyle(document.body).backgroundColor"))
            assert page.run("document.querySelectorAll('section').length") == 8
            # nothing is wider than the window, but for tables that scroll by themselves
            assert page.run("document.documentElement.scrollWidth <= innerWidth")
            bars = page.run("document.querySelector('.bar').getBoundingClientRect().height")
            assert bars > 0
        assert page.console == []
    assert shots == ["rgb(246, 247, 249)", "rgb(16, 20, 27)"]


def test_curves_come_from_the_loops_file(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "train/loss": 3.0, "train/learning_rate": 0.1},
        {"step": 2, "train/loss": 2.0, "validation/loss": 2.5, "validation/accuracy": 0.5},
        {"step": 2, "train/loss": 1.5},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "tr')
    series = read_series(path)
    assert losses(series) == [
        Curve("train/loss", [(1.0, 3.0), (2.0, 1.5)]),
        Curve("validation/loss", [(2.0, 2.5)]),
    ]
    assert [each.name for each in validation_metrics(series)] == ["validation/accuracy"]
    assert read_series(tmp_path / "none") == {}


def test_a_long_curve_keeps_its_peaks() -> None:
    points = [(float(step), 0.0) for step in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    points[7] = (7.0, float("nan"))
    found = thin(points)
    assert len(found) <= MAX_POINTS
    assert (54_321.0, 9.0) in found
    assert found == sorted(found)


numbers = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: round(value, 6))


@given(st.lists(numbers, max_size=5), st.booleans())
def test_scales_hold_all_values(values: list[float], log: bool) -> None:
    scale = scale_of([*values, float("nan")], 0, 100, log=log)
    for value in values:
        assert 0 <= scale.at(value) <= 100
    marks = scale.ticks()
    assert marks == sorted(marks)
    assert all(scale.low - 1e-9 <= mark <= scale.high + 1e-9 for mark in marks)


@given(numbers, st.floats(1e-6, 1e9))
def test_marks_are_few_and_even(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 1 <= len(found) <= 7


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.98765, "0.9877"),
        (1.2e-7, "1.2e-7"),
        (1e-6, "1e-6"),
        (123456.7, "1.2e5"),
        (float("inf"), "infinite"),
        (float("nan"), "\N{EN DASH}"),
    ],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert shown(value) == text
