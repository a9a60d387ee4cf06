"""ONNX models on CPU: what the file fills in, what it contradicts, and what it answers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from model_files import batch_of, each, load_spec, whole, write_onnx, write_onnx_identity
from penstock.backends.base import LoadedModel
from penstock.backends.onnx_binding import BoundRun, can_bind
from penstock.backends.registry import load
from penstock.errors import LoadFailed, ModelFailed
from penstock.model_config import ConfigDict, parse
from penstock.types import NUMPY_DTYPES

FILE_DEFAULTS: ConfigDict = {"backend": "", "max_batch_size": 0, "input": [], "output": []}
"""What the configuration of a file holds that says nothing of these."""


def write_add_sub(model_dir: Path) -> None:
    """SUM = A + B and DIFF = A - B, FP32[batch, 4]."""
    write_onnx(
        model_dir,
        [("Add", ["A", "B"], ["SUM"]), ("Sub", ["A", "B"], ["DIFF"])],
        {"A": ("FP32", ["batch", 4]), "B": ("FP32", ["batch", 4])},
        {"SUM": ("FP32", ["batch", 4]), "DIFF": ("FP32", ["batch", 4])},
    )


def tensor(name: str, data_type: str, *dims: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "data_type": data_type, "dims": list(dims), **more}


def load_tiny(model_dir: Path, config: ConfigDict | None = None) -> LoadedModel:
    return load(load_spec(model_dir, config))


def floats(rows: int, value: float = 1) -> dict[str, np.ndarray]:
    return {"A": np.full((rows, 4), value, np.float32), "B": np.ones((rows, 4), np.float32)}


@pytest.mark.parametrize("given", [{}, FILE_DEFAULTS])
def test_free_first_dimension_makes_a_batching_model(given: ConfigDict, model_dir: Path) -> None:
    write_add_sub(model_dir)
    config = load_tiny(model_dir, given).config
    assert config["max_batch_size"] == 64
    assert config["dynamic_batching"] == {}
    assert config["input"] == [tensor("A", "TYPE_FP32", 4), tensor("B", "TYPE_FP32", 4)]
    assert config["output"] == [tensor("SUM", "TYPE_FP32", 4), tensor("DIFF", "TYPE_FP32", 4)]
    assert parse(config).max_batch_size == 64


def test_fixed_first_dimension_makes_no_batching_model(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", [2, "any"])
    model = load_tiny(model_dir)
    assert model.config["max_batch_size"] == 0
    assert "dynamic_batching" not in model.config
    assert model.config["input"] == [tensor("X", "TYPE_FP32", 2, -1)]
    array = np.ones((2, 3), np.float32)
    assert whole(model.execute(batch_of({"X": array})))["Y"].shape == (2, 3)


def test_explicit_tensors_beside_max_batch_size_0_mean_no_batching(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", ["n", 4])
    given = {
        "max_batch_size": 0,
        "input": [tensor("X", "TYPE_FP32", -1, 4)],
        "output": [tensor("Y", "TYPE_FP32", -1, 4)],
    }
    config = load_tiny(model_dir, given).config
    assert config["max_batch_size"] == 0
    assert config["input"] == given["input"]


def test_given_fields_are_kept(model_dir: Path) -> None:
    write_add_sub(model_dir)
    given = {
        "max_batch_size": 8,
        "dynamic_batching": {"max_queue_delay_microseconds": 5},
        "output": [tensor("SUM", "TYPE_FP32", 4, label_filename="labels.txt")],
    }
    config = load_tiny(model_dir, given).config
    assert config["max_batch_size"] == 8
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 5}
    assert config["output"] == given["output"]
    assert [t["name"] for t in config["input"]] == ["A", "B"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"input": [tensor("A", "TYPE_FP32", 4), tensor("Z", "TYPE_FP32", 4)]}, "input 'B'"),
        ({"output": [tensor("Z", "TYPE_FP32", 4)]}, "output 'Z'.*expected one of"),
        (
            {"output": [tensor("SUM", "TYPE_INT32", 4)]},
            "output 'SUM': the model has TYPE_FP32, the configuration TYPE_INT32",
        ),
        (
            {"output": [tensor("SUM", "TYPE_FP32", 5)]},
            r"output 'SUM': the model has dims \[4\].*configuration \[5\]",
        ),
        ({"output": [tensor("SUM", "TYPE_FP32", -1)]}, r"\[4\].*\[-1\]"),
        ({"output": [tensor("SUM", "TYPE_FP32", 4, 1)]}, r"\[4\].*\[4, 1\]"),
    ],
)
def test_contradiction_names_the_tensor(given: ConfigDict, text: str, model_dir: Path) -> None:
    write_add_sub(model_dir)
    with pytest.raises(LoadFailed, match=text):
        load_tiny(model_dir, {"max_batch_size": 8, **given})


def test_max_batch_size_of_a_model_with_a_fixed_batch_is_refused(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", [1, 4])
    with pytest.raises(LoadFailed, match=r"input 'X': max_batch_size is over 0.*\[1, 4\]"):
        load_tiny(model_dir, {"max_batch_size": 8})


def test_batch_runs_as_one(model_dir: Path) -> None:
    write_add_sub(model_dir)
    model = load_tiny(model_dir)
    outputs = whole(model.execute(batch_of(floats(1, 3), floats(2, 5))))
    assert outputs["SUM"].tolist() == [[4] * 4, [6] * 4, [6] * 4]
    assert outputs["DIFF"].tolist() == [[2] * 4, [4] * 4, [4] * 4]
    model.close()


@pytest.mark.parametrize(
    ("asked_for", "expected"),
    [
        ([("SUM",), ("SUM",)], {"SUM"}),
        ([("SUM",), ("DIFF",)], {"SUM", "DIFF"}),
        ([("SUM",), ()], {"SUM", "DIFF"}),
    ],
)
def test_only_outputs_that_are_asked_for_are_computed(
    asked_for: list[tuple[str, ...]], expected: set[str], model_dir: Path
) -> None:
    write_add_sub(model_dir)
    batch = batch_of(floats(1), floats(1), outputs=asked_for)
    assert whole(load_tiny(model_dir).execute(batch)).keys() == expected


@pytest.mark.parametrize("datatype", sorted(NUMPY_DTYPES.keys() - {"BYTES"}))
def test_every_datatype_passes_unchanged(datatype: str, model_dir: Path) -> None:
    write_onnx_identity(model_dir, datatype, ["n", 3])
    model = load_tiny(model_dir)
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(NUMPY_DTYPES[datatype])
    output = whole(model.execute(batch_of({"X": array})))["Y"]
    assert output.dtype == NUMPY_DTYPES[datatype]
    assert output.tobytes() == array.tobytes()
    assert parse(model.config).input[0].datatype == datatype


def test_bf16_of_a_joined_batch_slice(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "BF16", ["n", 2])
    model = load_tiny(model_dir)
    array = np.arange(12, dtype=np.float32).reshape(6, 2).astype(NUMPY_DTYPES["BF16"])
    output = whole(model.execute(batch_of({"X": array[::2]})))["Y"]
    assert output.tolist() == array[::2].tolist()


def test_bf16_empty(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "BF16", ["n", "m"])
    array = np.zeros((1, 0), NUMPY_DTYPES["BF16"])
    assert whole(load_tiny(model_dir).execute(batch_of({"X": array})))["Y"].shape == (1, 0)


def test_bytes_are_utf8_strings(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "BYTES", ["n", 2])
    array = np.array([[b"a\0b", "é".encode()], [b"", b"\n"]], dtype=np.object_)
    output = whole(load_tiny(model_dir).execute(batch_of({"X": array})))["Y"]
    assert output.dtype == np.object_
    assert output.tolist() == array.tolist()


def test_bytes_that_are_not_utf8_fail_their_request_only(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "BYTES", ["n"])
    good, bad = ({"X": np.array([text], dtype=np.object_)} for text in (b"good", b"\xff"))
    answers = each(load_tiny(model_dir).execute(batch_of(good, bad, good)))
    assert isinstance(answers[1], ModelFailed)
    assert "input 'X' holds bytes that are not UTF-8" in str(answers[1])
    assert [answers[i]["Y"].tolist() for i in (0, 2)] == [[b"good"], [b"good"]]


def test_runtime_error_is_short_and_hits_one_request(model_dir: Path) -> None:
    write_onnx(
        model_dir,
        [("Gather", ["T", "X"], ["Y"]), ("Shape", ["X"], ["T"])][::-1],
        {"X": ("INT64", ["n"])},
        {"Y": ("INT64", ["n"])},
    )
    good, bad = ({"X": np.array([index], np.int64)} for index in (0, 7))
    model = load_tiny(model_dir)
    answers = each(model.execute(batch_of(good, bad)))
    assert answers[0]["Y"].tolist() == [1]
    assert isinstance(answers[1], ModelFailed)
    assert str(answers[1]).startswith("ONNX Runtime: ")
    assert "ONNXRuntimeError" not in str(answers[1])
    assert "\n" not in str(answers[1])


def test_output_without_a_row_a_request_is_refused(model_dir: Path) -> None:
    write_onnx(
        model_dir,
        [("NonZero", ["X"], ["T"]), ("Transpose", ["T"], ["Y"])],
        {"X": ("FP32", ["n", 4])},
        {"Y": ("INT64", ["m", 2])},
    )
    model = load_tiny(model_dir)
    with pytest.raises(ModelFailed, match=r"output 'Y' has shape \[8, 2\], expected first.* 2:"):
        model.execute(batch_of({"X": np.ones((2, 4), np.float32)}))


def test_reshape_of_the_configuration(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", ["n"])
    given = {
        "max_batch_size": 8,
        "input": [tensor("X", "TYPE_FP32", 1, reshape={"shape": []})],
        "output": [tensor("Y", "TYPE_FP32", 1, reshape={})],
    }
    model = load_tiny(model_dir, given)
    array = np.ones((3, 1), np.float32)
    assert whole(model.execute(batch_of({"X": array})))["Y"].shape == (3, 1)
    assert model.config["input"] == given["input"]


def test_reshape_that_does_not_fit_fails_the_request(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", ["n", 2, 2])
    given = {
        "max_batch_size": 8,
        "input": [tensor("X", "TYPE_FP32", -1, reshape={"shape": [2, 2]})],
        "output": [tensor("Y", "TYPE_FP32", 2, 2)],
    }
    model = load_tiny(model_dir, given)
    assert whole(model.execute(batch_of({"X": np.ones((1, 4), np.float32)})))["Y"].size == 4
    with pytest.raises(
        ModelFailed, match=r"'X' of shape \[1, 5\] can't be reshaped to \[1, 2, 2\]"
    ):
        model.execute(batch_of({"X": np.ones((1, 5), np.float32)}))


def test_type_that_the_protocol_lacks_is_refused_by_name(model_dir: Path) -> None:
    path = write_onnx_identity(model_dir, "FP32", ["n"])
    import onnx
    from onnx import helper

    model = onnx.load(path)
    model.graph.node.append(helper.make_node("SequenceConstruct", ["X"], ["S"]))
    model.graph.output.append(helper.make_tensor_sequence_value_info("S", 1, None))
    onnx.save(model, path)
    with pytest.raises(LoadFailed, match=r"'S' of the ONNX model is seq\(tensor\(float\)\)"):
        load_tiny(model_dir)
    config = load_tiny(model_dir, {"output": [tensor("Y", "TYPE_FP32", -1)]}).config
    assert [t["name"] for t in config["output"]] == ["Y"]


def test_scalar_output_is_believed_to_the_configuration(model_dir: Path) -> None:
    write_onnx(
        model_dir,
        [("Reshape", ["X", "S"], ["Y"])],
        {"X": ("FP32", [4]), "S": ("INT64", ["k"])},
        {"Y": ("FP32", [])},
    )
    given = {
        "input": [tensor("X", "TYPE_FP32", 4), tensor("S", "TYPE_INT64", -1)],
        "output": [tensor("Y", "TYPE_FP32", -1, -1)],
    }
    assert load_tiny(model_dir, given).config["output"] == given["output"]


def test_default_model_filename(model_dir: Path) -> None:
    path = write_onnx_identity(model_dir, "FP32", ["n", 4])
    path.rename(path.with_name("net.onnx"))
    assert load_tiny(model_dir, {"default_model_filename": "net.onnx"}).config["input"]


def test_model_in_a_folder_of_its_name(model_dir: Path) -> None:
    path = write_onnx_identity(model_dir, "FP32", ["n", 4])
    moved = path.with_name("moved")
    path.rename(moved)
    path.mkdir()
    shutil.move(moved, path / "model.onnx")
    assert load_tiny(model_dir).config["max_batch_size"] == 64


def test_missing_file_names_the_path(model_dir: Path) -> None:
    with pytest.raises(LoadFailed, match=r"expected .*tiny/1/model\.onnx"):
        load_tiny(model_dir, {"backend": "onnxruntime"})


def test_corrupt_file_gives_a_short_reason(model_dir: Path) -> None:
    (model_dir / "1" / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(LoadFailed, match=r"ONNX Runtime can't load .*: INVALID_PROTOBUF") as caught:
        load_tiny(model_dir)
    assert "\n" not in str(caught.value)


def test_by_io_binding_the_answers_are_the_same(model_dir: Path) -> None:
    write_add_sub(model_dir)
    config = load_tiny(model_dir).config
    session = ort.InferenceSession(model_dir / "1" / "model.onnx")
    run = BoundRun(session, config, lambda nbytes: np.empty(nbytes, np.uint8))
    memory: set[int] = set()
    for rows in (3, 1, 3):
        run.begin()
        total, difference = run(["SUM", "DIFF"], floats(rows, value=rows))
        np.testing.assert_array_equal(total, np.full((rows, 4), rows + 1, np.float32))
        np.testing.assert_array_equal(difference, np.full((rows, 4), rows - 1, np.float32))
        memory.add(total.ctypes.data)
    assert len(memory) == 1  # it was laid out once
    (alone,) = run(["DIFF"], floats(2))
    assert alone.ctypes.data not in memory  # a batch that is run request by request
    np.testing.assert_array_equal(total, np.full((3, 4), 4, np.float32))
    np.testing.assert_array_equal(alone, np.zeros((2, 4), np.float32))


def test_by_io_binding_outputs_of_any_size_are_new(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "INT32", ["batch", "any"])
    session = ort.InferenceSession(model_dir / "1" / "model.onnx")
    run = BoundRun(session, load_tiny(model_dir).config, lambda nbytes: np.empty(0, np.uint8))
    array = np.arange(6, dtype=np.int32).reshape(3, 2).T
    run.begin()
    (answer,) = run(["Y"], {"X": array})
    np.testing.assert_array_equal(answer, array)


def test_by_io_binding_a_scalar_stays_one(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "INT32", [])
    session = ort.InferenceSession(model_dir / "1" / "model.onnx")
    tensor = {"data_type": "TYPE_INT32", "dims": [1], "reshape": {"shape": []}}
    config = {
        "max_batch_size": 0,
        "input": [{"name": "X", **tensor}],
        "output": [{"name": "Y", **tensor}],
    }
    run = BoundRun(session, config, lambda nbytes: np.empty(nbytes, np.uint8))
    run.begin()
    (answer,) = run(["Y"], {"X": np.array(7, np.int32)})
    assert (answer.shape, int(answer)) == ((), 7)


@pytest.mark.parametrize(("datatype", "can"), [("FP32", True), ("BYTES", False), ("BF16", False)])
def test_which_models_are_bound(datatype: str, can: bool, model_dir: Path) -> None:
    write_onnx_identity(model_dir, datatype, ["batch", 2])
    assert can_bind(load_tiny(model_dir).config) is can


def test_without_cuda_a_gpus_model_runs_on_the_cpu_and_says_why(model_dir: Path) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    write_add_sub(model_dir)
    model = load(replace(load_spec(model_dir), device="cuda:0"))
    assert "no CUDAExecutionProvider" in getattr(model, "fallback", "")
    np.testing.assert_array_equal(
        whole(model.execute(batch_of(floats(2))))["SUM"], floats(2)["A"] + 1
    )
    assert getattr(load_tiny(model_dir), "fallback", None) == ""


@pytest.mark.gpu
def test_on_a_gpu_the_answers_are_the_same(model_dir: Path) -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA")
    write_add_sub(model_dir)
    model = load(replace(load_spec(model_dir), device="cuda:0"))
    assert getattr(model, "fallback", None) == ""
    for rows in (1, 5, 2):
        answer = whole(model.execute(batch_of(floats(rows, value=rows))))
        np.testing.assert_array_equal(answer["SUM"], np.full((rows, 4), rows + 1, np.float32))
        np.testing.assert_array_equal(answer["DIFF"], np.full((rows, 4), rows - 1, np.float32))
    model.close()
