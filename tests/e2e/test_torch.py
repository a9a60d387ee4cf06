"""PyTorch models that may run code, on a server that was not told to trust them. What serves is in test_backends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import torch_models as made
from served import Served

pytestmark = pytest.mark.e2e


class Saves(torch.nn.Module):
    """TorchScript that writes a file."""

    def forward(self, A: torch.Tensor) -> torch.Tensor:
        torch.save(A, "/tmp/penstock-is-not-to-write-this")
        return A


def test_what_may_run_code_has_to_be_allowed(serve: Callable[..., Served], tmp_path: Path) -> None:
    made.write_exported(tmp_path / "program")
    made.save_script(made.torch_script(Saves()), tmp_path / "script")
    made.write_config(tmp_path / "script", made.config("FP32"))
    flags = ("--model-control-mode=explicit", "--load-model=*")
    index = serve(tmp_path, "grpcio", *flags).wait_ready().index()
    said = {name: index[name, "1"]["reason"] for name in ("program", "script")}
    assert "program of torch.export, whose guards are Python code" in said["program"]
    assert "TorchScript that may read or write any file" in said["script"]
    assert all("the model's name in artifacts.allow_pickle" in reason for reason in said.values())
