"""Nothing that we run reports to its makers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from served import Served
from served_models import write_add_sub

REPORTERS = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY")


def test_libraries_are_told(tmp_path: Path) -> None:
    """A new user's: ONNX Runtime and OpenVINO would write an id there for what they upload."""
    environment = {k: v for k, v in os.environ.items() if k not in REPORTERS}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    program = (
        "from penstock.quiet import keep_quiet; keep_quiet(); import onnxruntime, openvino, sys;"
        "assert not sys.modules['openvino_telemetry']"
    )
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.e2e
def test_workers_are_quiet(
    tmp_path: Path, serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker's environment has it, where the server's says nothing."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    write_add_sub(tmp_path / "models" / "add_sub")
    served = serve(tmp_path / "models", "grpcio").wait_ready()
    (pid,) = served.workers("add_sub")
    assert b"ORT_DISABLE_TELEMETRY=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
