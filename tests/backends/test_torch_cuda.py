"""PyTorch models on a GPU, against the same ones on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_models as made
from model_files import batch_of, load_spec, whole
from penstock.backends.base import LoadedModel
from penstock.backends.registry import load
from penstock.repository.config_file import read_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch is built without CUDA"),
]


def on_gpu(folder: Path, **parameters: str) -> LoadedModel:
    config: dict[str, Any] = read_config(folder) or {}
    given = {key: {"string_value": value} for key, value in parameters.items()}
    config["parameters"] = {**(config.get("parameters") or {}), **given}
    return load(replace(load_spec(folder, config), device="cuda:0"))


@pytest.mark.parametrize("kind", ["torchscript", "exported", "state_dict"])
@pytest.mark.parametrize("graphs", ["0", "1"])
def test_batches_of_all_sizes(kind: str, graphs: str, model_dir: Path) -> None:
    """Also those that are padded, and those that are recorded and replayed."""
    made.WRITERS[kind](model_dir)
    model = on_gpu(model_dir, cuda_graphs=graphs)
    random = np.random.default_rng(3)
    for rows in (1, 3, 3, 4, 8, 5, 8, 2, 3, 7):
        a, b = (random.random((rows, 4), np.float32) for _ in range(2))
        found = whole(model.execute(batch_of({"A": a, "B": b})))
        np.testing.assert_array_equal(found["SUM"], a + b)
        np.testing.assert_array_equal(found["SCALED"], a * 2)
    model.close()


class WithSize(torch.nn.Module):
    """Fails for zeros, and has an output that is not on the GPU."""

    def forward(self, A: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if bool((A == 0).all()):
            raise ValueError("nothing but zeros")
        return A * 2, torch.full((A.shape[0], 1), A.shape[1])


@pytest.mark.parametrize("graphs", ["0", "1"])
def test_what_no_graph_can_hold_runs_without(graphs: str, model_dir: Path) -> None:
    made.save_script(made.torch_script(WithSize()), model_dir)
    tensors = ("input", "A", "FP32", 4), ("output", "Y", "FP32", 4), ("output", "N", "INT64", 1)
    said = [f'{k} {{ name: "{n}" data_type: TYPE_{t} dims: [ {d} ] }}' for k, n, t, d in tensors]
    made.write_config(model_dir, made.BATCHED + "\n".join(said))
    model = on_gpu(model_dir, cuda_graphs=graphs)
    for rows in (2, 2, 2, 3):
        found = whole(model.execute(batch_of({"A": np.ones((rows, 4), np.float32)})))
        assert found["Y"].tolist() == [[2] * 4] * rows
        assert found["N"].tolist() == [[4]] * rows
    model.close()


def test_memory_is_given_back(model_dir: Path) -> None:
    made.write_state_dict(model_dir)
    before = torch.cuda.memory_allocated()
    model = on_gpu(model_dir, cuda_graphs="1")
    one = np.ones((1, 4), np.float32)
    for _ in range(3):
        model.execute(batch_of({"A": one, "B": one}))
    model.close()
    del model
    assert torch.cuda.memory_allocated() <= before
