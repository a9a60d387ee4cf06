"""The chaos run against `penstock serve`, over each front: its books must balance.

`PENSTOCK_CHAOS_SECONDS` says for how long in all (60), `PENSTOCK_CHAOS_SEED` with which chance (1).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.e2e

SECONDS: Final = float(os.environ.get("PENSTOCK_CHAOS_SECONDS", "60"))
SEED: Final = os.environ.get("PENSTOCK_CHAOS_SEED", "1")
AROUND_S: Final = 240
"""For start, warm-up, quiet, stop, and patience with answers that don't come."""

SHARES: Final = {"envoy": 2 / 3, "grpcio": 1 / 3}


@pytest.mark.timeout(SECONDS + AROUND_S)
@pytest.mark.parametrize("front", SHARES)
def test_the_books_balance(front: str, tmp_path: Path) -> None:
    found = tmp_path / "chaos.json"
    seconds = SECONDS * SHARES[front]
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "penstock_loadtest", "chaos", "--front", front),
            *("--seconds", str(seconds), "--seed", SEED, "--json", str(found)),
        ],
        capture_output=True,
        text=True,
        timeout=seconds + AROUND_S,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads(found.read_text())
    assert result["passed"] is True
    # a run that did nothing would balance too
    assert result["kinds"]["ok"] > 100 * seconds
    deeds = result["deeds"]
    assert min(deeds[name] for name in ("kills", "reloads", "cuts", "stalls")) > 0, deeds
