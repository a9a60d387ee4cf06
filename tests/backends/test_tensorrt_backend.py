"""The tensorrt backend: the ONNX file runs where TensorRT can't, and the model says why; on a GPU, the engine does."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorrt_models
from model_files import batch_of, load_spec, whole, write_onnx
from penstock.backends import disk_cache
from penstock.backends.base import LoadedModel, LoadSpec
from penstock.backends.registry import backend_for, load
from penstock.backends.tensorrt_key import ENGINES, TIMINGS
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

pytestmark = pytest.mark.extension("tensorrt")

BACKEND: ConfigDict = {"backend": "tensorrt", "max_batch_size": 8}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where engines are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def fallback(model: LoadedModel) -> str:
    return getattr(model, "fallback", "")


def check_answers(model: LoadedModel, *sizes: int) -> None:
    for rows in sizes:
        a = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
        answer = whole(model.execute(batch_of({"A": a, "B": np.ones_like(a)})))
        np.testing.assert_array_equal(answer["SUM"], a + 1)
        np.testing.assert_array_equal(answer["SCALED"], a * 2)


def test_on_a_cpu_onnx_runtime_runs_the_model_and_says_why(model_dir: Path) -> None:
    tensorrt_models.write(model_dir)
    model = load(load_spec(model_dir, BACKEND))
    assert fallback(model) == (
        "TensorRT needs a GPU, and this instance runs on the CPU: ONNX Runtime runs model.onnx in its place"
    )
    assert model.config["platform"] == "onnxruntime_onnx"
    assert model.config["backend"] == "tensorrt"
    assert "default_model_filename" not in model.config
    assert [tensor["name"] for tensor in model.config["output"]] == ["SUM", "SCALED"]
    check_answers(model, 1, 8, 3)
    model.close()


def test_the_file_that_the_configuration_names_stays_in_it(model_dir: Path) -> None:
    tensorrt_models.write(model_dir)
    (model_dir / "1" / "big.plan").write_bytes(b"a plan of another machine")
    model = load(load_spec(model_dir, {**BACKEND, "default_model_filename": "big.plan"}))
    assert model.config["default_model_filename"] == "big.plan"
    check_answers(model, 2)


def test_without_the_package_the_model_says_so(model_dir: Path) -> None:
    if find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    tensorrt_models.write(model_dir)
    model = load(replace(load_spec(model_dir, BACKEND), device="cuda:0"))
    assert "the package tensorrt is not there" in fallback(model)
    assert "No module named 'tensorrt'" in fallback(model)
    check_answers(model, 2)


def test_a_plan_with_no_onnx_file_beside_it_is_refused(model_dir: Path) -> None:
    (model_dir / "1" / "model.plan").write_bytes(b"a plan")
    with pytest.raises(LoadFailed, match=r"model.plan can't be run: .* expected model.onnx beside"):
        load(load_spec(model_dir, BACKEND))


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"parameters": {"precision": {"string_value": "half"}}}, "'precision' is 'half'"),
        ({"parameters": {"profile_max_shapes": {"string_value": "A"}}}, "'profile_max_shapes'"),
        ({"instance_group": [{"profile": ["x"]}]}, r"instance_group\[0\].profile"),
        ({"model_transaction_policy": {"decoupled": True}}, "expected false"),
    ],
)
def test_what_is_wrong_is_named_on_a_cpu_too(
    config: dict[str, Any], error: str, model_dir: Path
) -> None:
    tensorrt_models.write(model_dir)
    with pytest.raises(LoadFailed, match=error):
        load(load_spec(model_dir, {**BACKEND, **config}))


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({"platform": "tensorrt_plan"}, ["model.onnx"]),
        ({"default_model_filename": "a.plan"}, []),
        ({}, ["model.plan"]),
        ({}, ["model.plan", "model.onnx"]),
    ],
)
def test_what_asks_for_tensorrt(config: ConfigDict, files: list[str], model_dir: Path) -> None:
    for name in files:
        (model_dir / "1" / name).write_bytes(b"x")
    assert backend_for(config, model_dir / "1") == "tensorrt"


def test_what_needs_cuda_is_imported_without_a_gpu_too() -> None:
    pytest.importorskip("cuda.bindings")
    for name in ("builder", "contexts", "engine", "graphs", "memory"):
        import_module(f"penstock.backends.tensorrt_{name}")


def on_gpu(model_dir: Path, **config: Any) -> LoadSpec:
    """To load on the first GPU, or to skip."""
    pytest.importorskip("tensorrt")
    return replace(load_spec(model_dir, {**BACKEND, **config}), device="cuda:0")


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_an_engine_gives_the_same_answers(graphs: bool, model_dir: Path) -> None:
    tensorrt_models.write(model_dir)
    spec = on_gpu(
        model_dir,
        optimization={"cuda": {"graphs": graphs}},
        dynamic_batching={"preferred_batch_size": [4]},
    )
    model = load(spec)
    assert fallback(model) == ""
    assert model.config["platform"] == "tensorrt_plan"
    check_answers(model, 1, 4, 5, 8, 1, 1, 4, 4, 8, 8, 1)
    # of one profile, in turn: each is queued, captured and replayed with the other one between
    check_answers(model, 5, 7, 5, 7, 5, 7)
    model.close()


@pytest.mark.gpu
def test_more_shapes_than_there_are_graphs_for(model_dir: Path) -> None:
    """Each graph has a context to itself, and all share their scratch memory: answers stay right in any order."""
    tensorrt_models.write(model_dir)
    graphs: ConfigDict = {"cuda": {"graphs": True}}
    model = load(on_gpu(model_dir, optimization=graphs, max_batch_size=40))
    sizes = [*range(1, 41)]
    check_answers(model, *sizes, *sizes, *reversed(sizes), *sizes)
    model.close()


@pytest.mark.gpu
def test_an_engine_is_built_once(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensorrt_models.write(model_dir)
    spec = on_gpu(model_dir)
    load(spec).close()
    folder = disk_cache.folder(ENGINES)
    assert len(list(folder.iterdir())) == len(list(disk_cache.folder(TIMINGS).iterdir())) == 1
    monkeypatch.setattr("penstock.backends.tensorrt_builder._build", None)
    model = load(spec)
    check_answers(model, 3)
    model.close()


@pytest.mark.gpu
def test_a_plan_runs(model_dir: Path) -> None:
    tensorrt_models.write(model_dir)
    spec = on_gpu(model_dir)
    load(spec).close()
    (engine,) = disk_cache.folder(ENGINES).iterdir()
    engine.rename(model_dir / "1" / "model.plan")
    (model_dir / "1" / "model.onnx").unlink()
    model = load(spec)
    assert fallback(model) == ""
    check_answers(model, 8, 1)
    model.close()


@pytest.mark.gpu
def test_a_plan_that_is_none_is_replaced(model_dir: Path) -> None:
    tensorrt_models.write(model_dir)
    (model_dir / "1" / "model.plan").write_bytes(b"built for something else")
    model = load(on_gpu(model_dir))
    assert "can't run the plan" in fallback(model)
    check_answers(model, 2)
    model.close()


@pytest.mark.gpu
def test_an_output_whose_size_follows_from_values(model_dir: Path) -> None:
    write_onnx(
        model_dir,
        [("NonZero", ["X"], ["WHERE"])],
        {"X": ("FP32", [4])},
        {"WHERE": ("INT64", [1, "count"])},
    )
    model = load(on_gpu(model_dir, max_batch_size=0, optimization={"cuda": {"graphs": True}}))
    assert fallback(model) == ""
    for values, expected in (([1, 0, 1, 1], [[0, 2, 3]]), ([0, 0, 0, 1], [[3]])):
        answer = whole(model.execute(batch_of({"X": np.array(values, np.float32)})))
        np.testing.assert_array_equal(answer["WHERE"], expected)
    model.close()


@pytest.mark.gpu
def test_a_shape_that_no_profile_takes_is_told(model_dir: Path) -> None:
    write_onnx(
        model_dir,
        [("Identity", ["X"], ["Y"])],
        {"X": ("FP32", ["batch", "any"])},
        {"Y": ("FP32", ["batch", "any"])},
    )
    sizes = {"profile_min_shapes": "X:2", "profile_opt_shapes": "X:4", "profile_max_shapes": "X:8"}
    given = {key: {"string_value": value} for key, value in sizes.items()}
    model = load(on_gpu(model_dir, parameters=given))
    array = np.ones((2, 9), np.float32)
    with pytest.raises(Exception, match=r"'X' has shape \[2, 9\], expected \[1, 2\] to \[8, 8\]"):
        model.execute(batch_of({"X": array}))
    np.testing.assert_array_equal(
        whole(model.execute(batch_of({"X": array[:, :5]})))["Y"], array[:, :5]
    )
    model.close()
