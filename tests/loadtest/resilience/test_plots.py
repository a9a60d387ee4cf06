"""Plots are drawn for what was measured."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path

import pytest

from penstock_loadtest.resilience.plots import draw_all
from penstock_loadtest.resilience.report import Report

NAMES = {"goodput", "memory", "fairness", "reloads", "loops"}
PNG = b"\x89PNG"


def test_all_plots_are_drawn_and_again_the_same(report: Report, tmp_path: Path) -> None:
    made = draw_all(report, tmp_path)
    assert {path.stem for path in made} == NAMES
    first = [path.read_bytes() for path in made]
    for content in first:
        assert xml.etree.ElementTree.fromstring(content).tag.endswith("svg")
    assert [path.read_bytes() for path in draw_all(report, tmp_path)] == first


def test_they_are_pixels_where_wanted(report: Report, tmp_path: Path) -> None:
    made = draw_all(report, tmp_path, ".png")
    assert {path.read_bytes()[:4] for path in made} == {PNG}


@pytest.mark.parametrize("server", ["penstock", "triton"])
def test_one_server_is_enough(report: Report, tmp_path: Path, server: str) -> None:
    own = Report(
        report.machine,
        report.settings,
        tuple(turn for turn in report.goodput if turn.server == server),
        tuple(turn for turn in report.fairness if turn.server == server),
        tuple(turn for turn in report.reloads if turn.server == server),
        tuple(turn for turn in report.loops if turn.server == server),
    )
    assert {path.stem for path in draw_all(own, tmp_path)} == NAMES


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    assert draw_all(Report({}, {}), tmp_path) == []
    assert not list(tmp_path.iterdir())
