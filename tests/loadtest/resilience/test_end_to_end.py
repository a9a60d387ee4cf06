"""The real thing for a second or two: `penstock serve`, client processes, JSON, plots and page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock_loadtest.cli import app
from penstock_loadtest.resilience import turn
from penstock_loadtest.resilience.fairness import fair_turn
from penstock_loadtest.resilience.overload import load_turn
from penstock_loadtest.resilience.page import MAKERS
from penstock_loadtest.resilience.report import read_report
from penstock_loadtest.servers import Penstock

pytestmark = [pytest.mark.e2e]

PENSTOCK = Penstock(
    (sys.executable, "-m", "penstock.cli"),
    ("--exit-timeout-secs", "1", "--tenant-header", "x-tenant"),
)


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured here."""
    monkeypatch.setattr(turn, "WARM_UP_S", 0.2)


def test_goodput_is_of_what_was_offered() -> None:
    found = load_turn(PENSTOCK, round_=0, load=0.1, seconds=2.0)
    assert found.server == "penstock"
    assert 0 < found.good <= found.offered
    # those without an answer are no part of the goodput
    assert 2 * found.good <= 2 * found.offered - found.unanswered + 0.1
    assert found.memory[0][1] > 0


def test_a_polite_tenant_beside_a_greedy_one() -> None:
    found = fair_turn(PENSTOCK, round_=0, times=3.0, seconds=1.0)
    assert found.polite_requests > 0
    assert found.polite_unanswered == 0
    assert found.greedy_answers > 0
    assert found.polite_p50_ms <= found.polite_p99_ms


def test_the_command_measures_reloads_draws_and_fills_the_page(tmp_path: Path) -> None:
    output, page = tmp_path / "plots", tmp_path / "page.md"
    page.write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in MAKERS))
    words = f"resilience --server penstock --part reloads --seconds 1 --rounds 1 --output {output}"
    result = CliRunner().invoke(app, [*words.split(), "--page", str(page)])
    assert result.exit_code == 0, result.output
    (found,) = read_report(output).reloads
    assert len(found.reloads) == 2
    assert [reload.error for reload in found.reloads] == ["", ""]
    assert found.processes == 3, "each reload gave another process"
    assert found.failures == ()
    assert len(found.holdings) == 3
    assert len(found.points) == found.answered > 0
    assert found.p50_ms <= found.p99_ms <= found.slowest_ms
    assert (output / "reloads.svg").exists()
    assert "| Penstock | 2 |" in page.read_text()
