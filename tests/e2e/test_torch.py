"""PyTorch models on both fronts, asked by NVIDIA's clients: of each kind one, all at once, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import torch_models as made
from penstock.types import Array
from served import FRONTS, Served

pytestmark = pytest.mark.e2e

SERVED = ("script", "program", "module")
PATIENCE_S = 60.0
"""Each worker imports torch."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    made.write_torchscript(folder / "script")
    made.write_exported(folder / "program")
    made.write_exported(folder / "forbidden")
    made.write_state_dict(folder / "module")
    return folder


@pytest.fixture(scope="module", params=FRONTS)
def served(request: pytest.FixtureRequest, folder: Path) -> Iterator[Served]:
    flags = ("--artifacts-allow-pickle=prog*", "--model-control-mode=explicit", "--load-model=*")
    served = Served(folder, request.param, *flags)
    try:
        yield served.wait_ready(PATIENCE_S)
        assert served.stop() == 0, served.log
    finally:
        served.close()


def ask(library: Any, served: Served, model: str, rows: int) -> dict[str, Array]:
    """By NVIDIA's client of either protocol."""
    a = np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)
    tensors = []
    for name, array in (("A", a), ("B", np.ones_like(a))):
        tensors.append(library.InferInput(name, array.shape, "FP32"))
        tensors[-1].set_data_from_numpy(array)
    address = served.http if library is tritonclient.http else served.grpc
    with library.InferenceServerClient(address) as client:
        answer = client.infer(model, tensors)
    np.testing.assert_array_equal(answer.as_numpy("SUM"), a + 1)
    np.testing.assert_array_equal(answer.as_numpy("SCALED"), a * 2)
    return {name: answer.as_numpy(name) for name in ("SUM", "SCALED")}


@pytest.mark.parametrize("library", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_models_of_each_kind_at_once(library: Any, served: Served) -> None:
    calls = [(model, rows) for model in SERVED for rows in (1, 3, 8, 2)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda call: ask(library, served, *call), calls))
    config = served.get("/v2/models/program/config").json
    assert [tensor["name"] for tensor in config["input"]] == ["A", "B"]
    assert served.get("/v2/models/script").json["platform"] == "torch"


def test_what_may_run_code_has_to_be_allowed(served: Served) -> None:
    reason = served.index()["forbidden", "1"]["reason"]
    assert "program of torch.export, whose guards are Python code" in reason
    assert "the model's name in artifacts.allow_pickle" in reason
