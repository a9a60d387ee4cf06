"""The GPU's table: its rows, what is said without a GPU, and, where there is one, all of it."""

from __future__ import annotations

import importlib.util

import pytest
from typer.testing import CliRunner

from penstock_loadtest.cli import app
from penstock_loadtest.kernels_gpu import CASES, measure, row


def test_a_row_has_medians() -> None:
    turns = [(2.0, 4.0, 1.0), (2.0, 6.0, 1.0), (4.0, 4.0, 1.0)]
    assert row(CASES[0], turns) == ("softmax", "64 x 1000", "2.0", "2.00", "50%")


@pytest.mark.skipif(importlib.util.find_spec("torch.version") is None, reason="torch is not there")
def test_without_a_gpu_it_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    result = CliRunner().invoke(app, ["gpu-kernels"])
    assert result.exit_code == 1
    assert "torch sees no GPU" in result.output


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    lines: list[str] = []
    assert "softmax" in measure("softmax", 1, lines.append)
    assert len(lines) == 3
