"""The kernels' table: what is compared computes the same, and the table is filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from penstock_kernels.cpu.runner import Cpu
from penstock_loadtest.cli import app
from penstock_loadtest.kernel_case import KernelCase
from penstock_loadtest.kernels import CASES, HEADS, KernelResult, measure, publish
from penstock_loadtest.marked import between

SMALL = [case for case in CASES if case.touched_bytes < 2**20]
PILLOW_ROUNDS = 0.05
"""Half a byte twice, normalised."""


@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"{case.name}, {case.size}")
def test_what_is_compared_computes_the_same(case: KernelCase) -> None:
    twin, replaced = case.make(np.random.default_rng(1))
    found, expected = _arrays(twin(Cpu(1))), _arrays(replaced())
    assert len(found) == len(expected)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            own, other, rtol=1e-5, atol=PILLOW_ROUNDS if "Pillow" in case.name else 1e-5
        )


def _arrays(result: Any) -> list[Any]:
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(part).astype(np.float64) for part in parts]


def test_the_table_is_filled_in(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- kernels -->\nold\n<!-- /kernels -->\nafter\n")
    case = KernelCase("none", "3 × 4", 24, lambda rng: (lambda on: None, lambda: None))  # noqa: RUF001
    told: list[str] = []
    results = measure([case], 3, 1, told.append)
    publish(results, page)
    lines = between(page.read_text(), "kernels").splitlines()
    assert lines[0] == f"| {' | '.join(HEADS)} |"
    assert lines[2].startswith("| none | 3 × 4 |")  # noqa: RUF001
    assert told == [" | ".join(results[0].row)]


def test_a_row_has_medians_and_shares() -> None:
    case = KernelCase("none", "1", 2, lambda rng: (lambda on: None, lambda: None))
    result = KernelResult(case, 2e-3, 9e-3, 1e-3, 4.56)
    assert result.row == ("none", "1", "2,000", "4.6", "50%")


def test_the_command_takes_cases_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    makers = [
        KernelCase(name, "1", 2, lambda rng: (lambda on: None, lambda: None)) for name in "ab"
    ]
    monkeypatch.setattr("penstock_loadtest.kernels.CASES", makers)
    done = CliRunner().invoke(app, ["kernels", "--only", "b", "--rounds", "1"])
    assert done.exit_code == 0
    assert "| b | 1 |" in done.stdout
    assert "| a | 1 |" not in done.stdout


def test_names_of_no_case_leave_the_page_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- kernels -->\nold\n<!-- /kernels -->\n")
    done = CliRunner().invoke(app, ["kernels", "--only", "sofmax", "--write", str(page)])
    assert done.exit_code == 1
    assert "no case's name holds 'sofmax'; there are: " in done.output
    assert "softmax_top_k, k = 5" in done.output
    assert "\nold\n" in page.read_text()
