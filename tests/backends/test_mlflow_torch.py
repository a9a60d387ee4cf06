"""Modules of PyTorch, saved by MLflow and loaded as a worker would, against the modules themselves."""

from __future__ import annotations

import shutil
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlflow_models as saved
from mlflow_loaded import load, pickle_in, predict, shapes
from mlflow_models import X, columns, libraries, tensors
from penstock.backends.mlflow_torch import load_pytorch
from penstock.errors import LoadFailed
from penstock.trust.pickles import find_pickle

pytestmark = [
    pytest.mark.extension("mlflow"),
    # of the libraries that load the models; a worker shows them in its log
    pytest.mark.filterwarnings("ignore"),
]


def test_pytorch(model_dir: Path) -> None:
    native = saved.write_pytorch(model_dir)
    model = load(model_dir)
    assert shapes(model, "output") == [("output-0", "TYPE_FP32", [2])]
    found = predict(model, {"input-0": X[:1]}, {"input-0": X[1:9]})
    np.testing.assert_allclose(found["output-0"], saved.outputs_of(native)[:9], rtol=1e-5)
    assert "torch.export" in pickle_in(model_dir, "data/model.pt2")


def test_a_program_for_one_row_only(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """torch.export takes a size of 1 in the example for the only one, whatever the signature says."""
    native = saved.write_pytorch(model_dir, rows=1)
    model = load(model_dir)
    assert model.config["max_batch_size"] == 0
    assert shapes(model, "input") == [("input-0", "TYPE_FP32", [1, 3])]
    assert "was exported for [1, 3] only" in caplog.text
    found = predict(model, {"input-0": X[:1]})
    np.testing.assert_allclose(found["output-0"], saved.outputs_of(native)[:1], rtol=1e-5)


def test_torchscript_and_pickled_modules(model_dir: Path) -> None:
    native = saved.network()
    for given, harmless in ((saved.traced(native), True), (native, False)):
        shutil.rmtree(model_dir / "1", ignore_errors=True)
        saved.write_pytorch(model_dir, given, "pickle")
        found = predict(load(model_dir), {"input-0": X[:4]})
        np.testing.assert_allclose(found["output-0"], saved.outputs_of(native)[:4], rtol=1e-5)
        assert (pickle_in(model_dir, "data/model.pth") == "") is harmless


class TwoInTwoOut:
    """What a module of two inputs and two outputs is like, as far as it is called."""

    def __call__(self, a: Any, b: Any, scale: float = 1.0) -> Any:
        return {"sum": (a + b) * scale, "pair": (a, b)[1]}


def test_modules_of_several_tensors_and_tables() -> None:
    """Tensors in the signature's order, a table as one; tensors wherever they are in what it returned."""
    from penstock.backends.mlflow_schema import parse_schema
    from penstock.backends.mlflow_torch import Torch

    torch = libraries().torch
    schema = parse_schema(tensors(("b", "float32", [-1]), ("a", "float32", [-1])), "here", "i")
    model = Torch(torch, TwoInTwoOut(), schema, ())
    arrays = {"a": np.array([1, 2], np.float32), "b": np.array([10, 20], np.float32)}
    found = model.predict(arrays, {"scale": 2.0})
    assert found["sum"].tolist() == [22, 44]
    assert found["pair"].tolist() == [1, 2]
    table = parse_schema(columns(("a", "double"), ("b", "long")), "here", "i")
    model = Torch(torch, lambda x: (x, [x * 2]), table, ())
    one, (two,) = model.predict(libraries().pandas.DataFrame({"a": [0.5], "b": [3]}), {})
    assert (one.dtype, one.tolist(), two.tolist()) == (np.float32, [[0.5, 3]], [[1, 6]])


def test_pytorch_without_what_it_needs(model_dir: Path) -> None:
    from penstock.backends.mlflow_model_file import read_model_file
    from penstock.backends.mlflow_schema import parse_schema

    saved.write_mlmodel(model_dir, {"pytorch": {"model_data": "data"}})
    (model_dir / "1" / "data").mkdir()
    file = read_model_file(model_dir / "1")
    with pytest.raises(LoadFailed, match=r"holds neither model\.pt2 nor model\.pth"):
        load_pytorch(file, parse_schema(columns(("a", "double")), "here", "i"), 1)
    with pytest.raises(
        LoadFailed, match="input 'a' is a text, which no tensor of PyTorch can hold"
    ):
        load_pytorch(file, parse_schema(columns(("a", "string")), "here", "i"), 1)


def test_programs_of_torch_by_their_content() -> None:
    """Whatever they are called: what is in them is run when they are loaded."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("net/archive_format", "pt2")
        file.writestr("net/models/net.json", "{}")
    assert "torch.export" in find_pickle(archive, "net.bin")
    assert "torch.export" in find_pickle(BytesIO(b""), "net.pt2")
