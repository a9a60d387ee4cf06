"""OpenVINO on CPU: its own files and those of others, Triton's parameters, and what it must not compute wrongly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_cases import to_openvino
from model_files import batch_of, each, load_spec, whole, write_onnx, write_onnx_identity
from penstock.backends.base import LoadedModel
from penstock.backends.openvino_library import openvino
from penstock.backends.openvino_options import options_of
from penstock.backends.registry import load
from penstock.errors import LoadFailed, ModelFailed
from penstock.model_config import ConfigDict
from penstock.types import NUMPY_DTYPES

ROOT = Path(__file__).parents[2]


def tensor(name: str, data_type: str, *dims: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "data_type": data_type, "dims": list(dims), **more}


def given(**parameters: str) -> ConfigDict:
    strings = {key: {"string_value": value} for key, value in parameters.items()}
    return {"backend": "openvino", "parameters": strings}


def load_tiny(model_dir: Path, config: ConfigDict | None = None) -> LoadedModel:
    return load(load_spec(model_dir, config if config is not None else {"backend": "openvino"}))


def test_onnx_files_are_read_where_the_backend_is_named(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", ["n", 4])
    model = load_tiny(model_dir)
    assert type(model).__name__ == "OpenvinoModel"
    assert model.config["max_batch_size"] == 64
    assert model.config["dynamic_batching"] == {}
    assert model.config["input"] == [tensor("X", "TYPE_FP32", 4)]
    array = np.ones((3, 4), np.float32)
    assert whole(model.execute(batch_of({"X": array})))["Y"].tolist() == array.tolist()
    assert type(load_tiny(model_dir, {})).__name__ == "OnnxModel"


def test_own_files_are_known(model_dir: Path) -> None:
    to_openvino(write_onnx_identity(model_dir, "FP32", ["n", 4]))
    assert load_tiny(model_dir, {}).config["input"] == [tensor("X", "TYPE_FP32", 4)]
    (model_dir / "1" / "model.bin").unlink()
    write_onnx_identity(model_dir, "FP32", ["n", 4])
    with pytest.raises(
        LoadFailed, match=r"holds model\.onnx \(onnxruntime\) and model\.xml \(openvino\): say"
    ):
        load_tiny(model_dir, {})


def test_missing_weights_are_told(model_dir: Path) -> None:
    write_onnx(
        model_dir, [("Add", ["X", "X"], ["Y"])], {"X": ("FP32", ["n"])}, {"Y": ("FP32", ["n"])}
    )
    to_openvino(model_dir / "1" / "model.onnx")
    path = model_dir / "1" / "model.xml"
    path.write_text(path.read_text().replace("<net ", "<nut "))
    with pytest.raises(LoadFailed, match=r"OpenVINO can't load .*/1/model\.xml: ") as caught:
        load_tiny(model_dir)
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)


@pytest.mark.parametrize("datatype", sorted(NUMPY_DTYPES.keys() - {"BYTES"}))
def test_every_datatype_passes_unchanged(datatype: str, model_dir: Path) -> None:
    write_onnx_identity(model_dir, datatype, ["n", 3])
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(NUMPY_DTYPES[datatype])
    output = whole(load_tiny(model_dir).execute(batch_of({"X": array})))["Y"]
    assert output.dtype == NUMPY_DTYPES[datatype]
    assert output.tobytes() == array.tobytes()


def test_elementless_tensors(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "INT64", ["n", "m"])
    array = np.zeros((2, 0), np.int64)
    assert whole(load_tiny(model_dir).execute(batch_of({"X": array})))["Y"].shape == (2, 0)


def test_strings_are_refused(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "BYTES", ["n", 2])
    with pytest.raises(LoadFailed, match=r"'X' of the model is string, .*expected one of boolean"):
        load_tiny(model_dir)


@pytest.mark.parametrize(
    ("datatype", "value"), [("INT64", 2**40), ("INT64", -(2**40)), ("UINT64", 2**63)]
)
def test_integers_that_it_would_change_fail_their_request(
    datatype: str, value: int, model_dir: Path
) -> None:
    write_onnx_identity(model_dir, datatype, ["n"])
    good, bad = ({"X": np.array([n], NUMPY_DTYPES[datatype])} for n in (2**31 - 1, value))
    answers = each(load_tiny(model_dir).execute(batch_of(good, bad, good)))
    assert isinstance(answers[1], ModelFailed)
    assert f"input 'X' holds {value}: OpenVINO computes" in str(answers[1])
    assert [answers[i]["Y"].tolist() for i in (0, 2)] == [[2**31 - 1]] * 2


def test_answers_one_by_one_are_each_their_own(model_dir: Path) -> None:
    """OpenVINO writes every answer into the same memory."""
    write_onnx_identity(model_dir, "INT64", ["n", 2])
    requests = [{"X": np.full((1, 2), n, np.int64)} for n in (1, 2**40, 3, 4)]
    answers = each(load_tiny(model_dir).execute(batch_of(*requests)))
    assert [answers[i]["Y"].tolist() for i in (0, 2, 3)] == [[[1, 1]], [[3, 3]], [[4, 4]]]


def test_a_fixed_batch_is_freed(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", [1, 4])
    model = load_tiny(model_dir, {"backend": "openvino", "max_batch_size": 8})
    assert whole(model.execute(batch_of({"X": np.ones((5, 4), np.float32)})))["Y"].shape == (5, 4)
    assert load_tiny(model_dir).config["max_batch_size"] == 0


def test_fixed_batches_and_padding(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", ["n", 4])
    config = {**given(SKIP_OV_DYNAMIC_BATCHSIZE="YES"), "max_batch_size": 4}
    three, four = (np.ones((rows, 4), np.float32) for rows in (3, 4))
    model = load_tiny(model_dir, config)
    assert model.config["input"] == [tensor("X", "TYPE_FP32", 4)]
    assert whole(model.execute(batch_of({"X": four})))["Y"].shape == (4, 4)
    with pytest.raises(ModelFailed, match=r"batches of 4 rows alone, and this one has 3; ENABLE_"):
        model.execute(batch_of({"X": three}))
    config["parameters"]["ENABLE_BATCH_PADDING"] = {"string_value": "yes"}
    outputs = whole(load_tiny(model_dir, config).execute(batch_of({"X": three})))
    assert outputs["Y"].tolist() == three.tolist()


def test_inputs_get_the_dims_of_the_configuration(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", [1, 4])
    inputs = {"input": [tensor("X", "TYPE_FP32", -1, 6)]}
    with pytest.raises(LoadFailed, match=r"'X': the model has dims \[1, 4\].*\[-1, 6\]"):
        load_tiny(model_dir, {"backend": "openvino", **inputs})
    model = load_tiny(model_dir, {**given(RESHAPE_IO_LAYERS="YES"), **inputs})
    assert model.config["output"] == [tensor("Y", "TYPE_FP32", -1, 6)]
    assert whole(model.execute(batch_of({"X": np.ones((2, 6), np.float32)})))["Y"].shape == (2, 6)


def test_defaults() -> None:
    options = options_of(load_spec(Path("tiny"), threads=3))
    assert options.properties["INFERENCE_NUM_THREADS"] == "3"
    assert options.properties["NUM_STREAMS"] == "1"
    assert options.properties["INFERENCE_PRECISION_HINT"] == "f32"
    assert not (options.fixed_batch or options.padding or options.reshape or options.extension)


@pytest.mark.parametrize(
    ("key", "value", "name", "expected"),
    [
        ("INFERENCE_NUM_THREADS", "1", "INFERENCE_NUM_THREADS", 1),
        ("NUM_STREAMS", "2", "NUM_STREAMS", 2),
        ("PERFORMANCE_HINT", "throughput", "PERFORMANCE_HINT", "THROUGHPUT"),
        ("HINT_BF16", "YES", "INFERENCE_PRECISION_HINT", "bfloat16"),
    ],
)
def test_parameters_arrive(key: str, value: str, name: str, expected: Any, model_dir: Path) -> None:
    """As OpenVINO has them, after compilation."""
    path = write_onnx_identity(model_dir, "FP32", ["n", 4])
    options = options_of(load_spec(model_dir, given(**{key: value}), threads=2))
    core = openvino().Core()
    compiled = core.compile_model(core.read_model(path), "CPU", dict(options.properties))
    found = compiled.get_property(name)
    shown = getattr(found, "to_string", lambda: getattr(found, "name", found))()
    if name == "INFERENCE_PRECISION_HINT":
        # without instructions for BF16 it stays with f32
        capable = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        assert ("bf" in str(shown)) == capable
    else:
        assert shown == expected


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("INFERENCE_NUM_THREADS", "many", "'many', expected a count of threads"),
        ("COMPILATION_NUM_THREADS", "-1", "'-1', expected a count of threads"),
        ("NUM_STREAMS", "0", "'0', expected a count over 0, AUTO or NUMA"),
        ("PERFORMANCE_HINT", "SPEED", "'SPEED', expected one of LATENCY, THROUGHPUT"),
        ("INFERENCE_PRECISION_HINT", "i8", "'i8', expected one of f32"),
        ("RESHAPE_IO_LAYERS", "1", "'1', expected YES or NO"),
        ("CPU_EXTENSION_PATH", "/lib/libc.so", "expected a file in the version's folder"),
        ("CPU_EXTENSION_PATH", "ops.so", "there is no .*/1/ops.so"),
    ],
)
def test_wrong_parameters(key: str, value: str, text: str, model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", ["n", 4])
    with pytest.raises(LoadFailed, match=f"parameter '{key}' is .*{text}"):
        load_tiny(model_dir, given(**{key: value}))


def test_decoupled_models_are_refused(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", ["n", 4])
    decoupled = {"backend": "openvino", "model_transaction_policy": {"decoupled": True}}
    with pytest.raises(LoadFailed, match="decoupled is true"):
        load_tiny(model_dir, decoupled)


def test_state_of_its_own_is_refused(model_dir: Path) -> None:
    """Rows of one client's batch would be added to another one's."""
    ov = openvino()
    x = ov.opset13.parameter([-1, 2], ov.Type.f32, name="X")
    kept = ov.opset13.read_value(x, "kept")
    total = ov.opset13.add(x, kept)
    assign = ov.opset13.assign(total, "kept")
    result = ov.opset13.result(total)
    ov.save_model(ov.Model([result], [assign], [x], "sum"), model_dir / "1" / "model.xml")
    with pytest.raises(LoadFailed, match="the model has state of its own"):
        load_tiny(model_dir)


def test_it_phones_nobody(model_dir: Path, tmp_path: Path) -> None:
    """A new user's: OpenVINO writes an id there when it is imported, and tells Google Analytics."""
    write_onnx_identity(model_dir, "FP32", ["n", 4])
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "import sys; from pathlib import Path; from model_files import load_spec;"
        "from penstock.backends.registry import load;"
        "load(load_spec(Path(sys.argv[1]), {'backend': 'openvino'})).close();"
        "assert 'openvino' in sys.modules;"
        "assert sys.modules.get('openvino_telemetry') is None"
    )
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT / "tests" / "support")}
    for variable in ("CI", "TF_BUILD", "JENKINS_URL"):
        environment.pop(variable, None)
    subprocess.run([sys.executable, "-c", program, str(model_dir)], env=environment, check=True)
    assert not list(home.iterdir())
