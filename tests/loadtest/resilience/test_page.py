"""The figures in docs/resilience.md."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from penstock_loadtest.marked import between
from penstock_loadtest.resilience.page import MAKERS, fill_page, part_of
from penstock_loadtest.resilience.report import Report, write_report


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("method", "| goodput | 2 | 10 |  |"),
        ("goodput", "| 2 | 100% | 4% |"),
        ("memory", "| Triton | 3.0 | 1.0 |"),
        ("fairness", "| 100 times more | 1.50 | 0% | 50.00 | 50% |"),
        ("reloads", "| Triton | 2 | 102 | 2 | 50 | 99 | 100 |"),
        ("loops", "| Triton | 2 | 2 of 102 | 50 | 42 | 3 | 1 |"),
        ("client", "| fairness | 2.5 ms | 50% |"),
    ],
)
def test_a_part_says_what_was_measured(
    report: Report, tmp_path: Path, name: str, line: str
) -> None:
    write_report(report, tmp_path)
    assert line in part_of(tmp_path, name).splitlines()


def test_a_spread_is_shown_where_there_is_one(report: Report) -> None:
    first, *others = report.goodput
    assert first.load == 0.5
    turns = (msgspec.structs.replace(first, good=95.0), *others)
    changed = msgspec.structs.replace(report, goodput=turns)
    assert "| 0.5 | 38% (25% - 50%) | 50% |" in MAKERS["goodput"](changed).splitlines()


def test_a_page_is_filled(report: Report, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in MAKERS))
    fill_page(page, report)
    for name, make in MAKERS.items():
        assert between(page.read_text(), name) == make(report)


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"method"}))
def test_what_was_not_measured_has_no_rows(name: str) -> None:
    assert len(MAKERS[name](Report({}, {})).splitlines()) == 2
