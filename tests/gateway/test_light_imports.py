"""What only workers need is not imported by a gateway: it would take memory, and time at the start."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("cuda", "mlflow", "numba", "onnxruntime", "openvino", "pynvml", "tensorrt", "torch")


@pytest.mark.parametrize("module", ["penstock.gateway.gateway", "penstock.gateway.portable"])
def test_a_gateway_imports_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert printed.stdout == "[]\n"
