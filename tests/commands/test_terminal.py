"""How wide what commands print is."""

from __future__ import annotations

import pytest
from rich.table import Table

from penstock.commands.terminal import terminal

REASON = " ".join(["a reason of many words"] * 20)


def test_what_goes_into_a_pipe_is_not_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table("model", "reason", box=None)
    table.add_row("m", REASON)
    terminal().print(table)
    _, row = capsys.readouterr().out.splitlines()
    assert row.rstrip().split(maxsplit=1) == ["m", REASON]
    # nothing is padded to a width that is not there
    assert len(row) < len(REASON) + 20


def test_whoever_says_how_wide_is_obeyed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal().print(REASON)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40
