"""Models of the onnx flavour, which run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlflow_models as saved
from mlflow_loaded import load, predict
from mlflow_models import X
from model_files import write_onnx
from penstock.errors import LoadFailed

pytestmark = [
    pytest.mark.extension("mlflow"),
    # of the libraries that load the models; a worker shows them in its log
    pytest.mark.filterwarnings("ignore"),
]


def test_onnx(model_dir: Path) -> None:
    """Runs in ONNX Runtime, from the file that MLflow's file names, with the options that it has."""
    free: tuple[str, Sequence[int | str | None]] = ("FP32", ["n", 3])
    write_onnx(model_dir, [("Neg", ["X"], ["Y"])], {"X": free}, {"Y": free}, "net.onnx")
    options = {
        "intra_op_num_threads": 2,
        "execution_mode": "parallel",
        "graph_optimization_level": 99,
        "extra_session_config": {"session.disable_prepacking": "1", "ep.other": "1"},
    }
    conf = {"data": "net.onnx", "onnx_session_options": options}
    loader = {"loader_module": "mlflow.onnx", "data": "net.onnx"}
    saved.write_mlmodel(model_dir, {"onnx": conf, "python_function": loader})
    model = load(model_dir, {"parameters": {"execution_mode": {"string_value": "0"}}})
    assert model.config["parameters"] == {
        "intra_op_thread_count": {"string_value": "2"},
        "execution_mode": {"string_value": "0"},
        "session.disable_prepacking": {"string_value": "1"},
    }
    assert model.config["optimization"] == {"graph": {"level": 0}}
    np.testing.assert_array_equal(predict(model, {"X": X[:2]})["Y"], -X[:2])


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"data": "gone.onnx"}, "flavors.onnx.data is 'gone.onnx', which is not there"),
        ({"data": "../1/net.onnx"}, "inside of the model's folder"),
        ({}, "flavors.onnx.data is None"),
        ({"onnx_session_options": 3}, "onnx_session_options is 3, expected a mapping"),
        (
            {"onnx_session_options": {"extra_session_config": [1]}},
            r"config is \[1\], expected a mapp",
        ),
        ({"onnx_session_options": {"execution_mode": "fast"}}, "'FAST', expected one of SEQUENT"),
        ({"onnx_session_options": {"graph_optimization_level": 7}}, "level is 7, expected one of"),
    ],
)
def test_onnx_that_is_wrong(model_dir: Path, conf: dict[str, Any], reason: str) -> None:
    saved.write_mlmodel(model_dir, {"onnx": conf})
    with pytest.raises(LoadFailed, match=reason):
        load(model_dir)
