"""The report is written and read back."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.resilience.report import FILE, Part, Report, read_report, write_report


def test_what_is_written_is_read_back(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    assert read_report(tmp_path) == report


def test_each_turn_is_a_line(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    lines = (tmp_path / FILE).read_text().splitlines()
    turns = [turn for part in Part for turn in getattr(report, part)]
    assert sum(line.startswith('  {"server"') for line in lines) == len(turns)


def test_parts_that_were_not_run_are_empty(tmp_path: Path) -> None:
    write_report(Report({}, {}), tmp_path)
    assert all(getattr(read_report(tmp_path), part) == () for part in Part)


@pytest.mark.parametrize("text", [None, "{", '{"machine": 1}'])
def test_what_is_no_report_is_told(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / FILE).write_text(text)
    with pytest.raises(BenchmarkError, match=f"{FILE} can't be read"):
        read_report(tmp_path)


def test_a_part_is_a_field() -> None:
    assert set(Part) <= {field.name for field in msgspec.structs.fields(Report)}
