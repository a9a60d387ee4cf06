"""The measurement of mTLS, with real servers and very short turns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock_loadtest.tls import measure

pytestmark = pytest.mark.e2e

MODEL_REPO = Path(__file__).parents[2] / "model_repo"


def test_ratios_of_real_servers() -> None:
    lines: list[str] = []
    command = [sys.executable, "-m", "penstock.cli"]
    ratios = measure(command, ["--front=grpcio"], MODEL_REPO, 0.3, 1, lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("plain: ")
    for ratio in (ratios.latency, ratios.server_cpu, ratios.new_connection):
        assert 0 < ratio.least == ratio.median == ratio.most
