"""The measurement of the response cache, with a real server and very short turns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock_loadtest.caching import measure

pytestmark = pytest.mark.e2e

MODEL_REPO = Path(__file__).parents[2] / "model_repo"


def test_ratios_of_a_real_server() -> None:
    lines: list[str] = []
    command = [sys.executable, "-m", "penstock.cli"]
    latency, server_cpu = measure(command, MODEL_REPO, 0.2, 1, lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("digits: ")
    for ratio in (latency, server_cpu):
        assert 0 < ratio.least == ratio.median == ratio.most
