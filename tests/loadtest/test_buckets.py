"""The comparison of padding with none: its network gives the same answer padded, and its arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from penstock_loadtest.buckets import BucketsOutcome
from penstock_loadtest.cli import app
from penstock_loadtest.recurrent import write_recurrent


def test_the_mask_hides_what_is_padded(tmp_path: Path) -> None:
    write_recurrent(tmp_path / "model.onnx")
    session: Any = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    tokens = np.arange(1, 13).reshape(2, 6)
    (alone,) = session.run(None, {"input_ids": tokens, "attention_mask": np.ones_like(tokens)})
    wide, mask = np.zeros((2, 9), np.int64), np.zeros((2, 9), np.int64)
    wide[:, :6], mask[:, :6] = tokens, 1
    (padded,) = session.run(None, {"input_ids": wide, "attention_mask": mask})
    np.testing.assert_allclose(padded, alone, rtol=1e-5)


def test_turns_that_followed_each_other_are_compared() -> None:
    outcome = BucketsOutcome((100.0, 200.0, 50.0), (150.0, 400.0, 200.0))
    assert outcome.ratio.rounds == (1.5, 2.0, 4.0)
    assert outcome.line() == (
        "without buckets 100 texts/s, with them 200: 2.00 times as many (1.50 - 4.00)"
    )


@pytest.mark.parametrize("words", [["--network", "/nowhere/model.onnx"]])
def test_a_network_that_is_not_there_is_told_in_one_line(words: list[str]) -> None:
    result = CliRunner().invoke(app, ["buckets", *words])
    assert result.exit_code == 1
    assert "error: /nowhere/model.onnx is not there" in result.output
