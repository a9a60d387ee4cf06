"""The comparison of backends: pairs of runs, of the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_loadtest import backends
from penstock_loadtest.backends import Case, Measured, measure, report
from penstock_loadtest.errors import BenchmarkError

MODELS = Path(__file__).parents[2] / "model_repo"


def test_both_run_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = backends.cases()[0]
    monkeypatch.setattr(backends, "cases", lambda: (digits,))
    said: list[str] = []
    found = measure(MODELS, [1], 4, said.append)
    assert [(each.rows, each.threads) for each in found] == [(1, 1), (8, 1), (64, 1)]
    assert all(len(each.ratios) == 4 and min(each.ratios) > 0 for each in found)
    assert len(said) == 3


def test_a_missing_model_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    none = Case("none", Path("none/1/model.onnx"), lambda _: {}, (1,))
    monkeypatch.setattr(backends, "cases", lambda: (none,))
    with pytest.raises(BenchmarkError, match=r"there is no .*none/1/model\.onnx"):
        measure(tmp_path, [1], 4, print)


def test_the_table_has_the_middle_and_the_spread() -> None:
    line = report([Measured("digits", 8, 1, [0.5, 1.0, 2.0, 1.0])]).splitlines()[-1]
    assert line == "| digits | 8 | 1 | 1.00 | 0.62 to 1.75 |"
