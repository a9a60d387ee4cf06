"""What an MLmodel file says, and what is told of one that is wrong. No model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlflow_models import columns, tensors, write_mlmodel
from model_files import load_spec
from penstock.backends import registry
from penstock.backends.mlflow_model_file import read_model_file
from penstock.backends.mlflow_params import parse_params
from penstock.backends.mlflow_schema import Kind, configured_schema, parse_schema
from penstock.errors import InvalidRequest, LoadFailed

pytestmark = pytest.mark.extension("mlflow")

PYFUNC = {"python_function": {"loader_module": "mlflow.pyfunc.model"}}
SKLEARN = {
    "python_function": {"loader_module": "mlflow.sklearn"},
    "sklearn": {"pickled_model": "model.skops", "serialization_format": "skops"},
}


def parameter(key: str, value: str) -> dict[str, Any]:
    return {"parameters": {key: {"string_value": value}}}


# ── which backend ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flavors", "config", "backend"),
    [
        ({"python_function": {"loader_module": "mlflow.onnx"}, "onnx": {}}, {}, "onnxruntime"),
        ({"onnx": {"data": "model.onnx"}}, {}, "onnxruntime"),
        ({"onnx": {}}, {"backend": "mlflow"}, "mlflow"),
        ({"onnx": {}}, {"default_model_filename": "MLmodel"}, "onnxruntime"),
        (SKLEARN, {}, "mlflow"),
        (PYFUNC, {}, "mlflow"),
        # the Python function is another model than the ONNX file, and the signature is the function's
        ({**PYFUNC, "onnx": {}}, {}, "mlflow"),
        ({**PYFUNC, "onnx": {}}, parameter("mlflow_flavor", "onnx"), "onnxruntime"),
    ],
)
def test_the_flavour_decides(
    model_dir: Path, flavors: dict[str, Any], config: dict[str, Any], backend: str
) -> None:
    write_mlmodel(model_dir, flavors)
    # MLflow's own files have the names of other backends'
    for name in ("model.onnx", "model.py"):
        (model_dir / "1" / name).touch()
    assert registry.backend_for(config, model_dir / "1") == backend


def test_which_flavour(model_dir: Path) -> None:
    write_mlmodel(model_dir, SKLEARN)
    file = read_model_file(model_dir / "1")
    assert file.flavor({}) == "sklearn"
    assert file.flavor(parameter("mlflow_flavor", "python_function")) == "python_function"
    with pytest.raises(LoadFailed, match=r"'onnx', which the model has not.* sklearn, python_fun"):
        file.flavor(parameter("mlflow_flavor", "onnx"))
    write_mlmodel(model_dir, {"pytorch": {}, "spark": {}})
    assert read_model_file(model_dir / "1").flavor({}) == "pytorch"
    write_mlmodel(model_dir, {"spark": {}})
    with pytest.raises(LoadFailed, match="no flavour that can be served: it has spark; expected"):
        registry.backend_for({}, model_dir / "1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("flavors: {a: [}", r"MLmodel is no YAML: line 1: "),
        ("\x01", "is no YAML"),
        ("", "holds NoneType, expected a mapping"),
        ("- flavors", "holds list, expected a mapping"),
        ("run_id: 1", "flavors is None, expected a mapping of flavours"),
        ("flavors: {}", "flavors is {}, expected"),
        ("flavors: {onnx: model.onnx}", "flavors.onnx is 'model.onnx', expected a mapping"),
        ("flavors: {1: {}}", "flavors.1 is {}"),
        ("flavors: {onnx: {}}\nsignature: x", "signature is 'x', expected a mapping"),
    ],
)
def test_a_file_that_is_wrong(model_dir: Path, text: str, reason: str) -> None:
    (model_dir / "1" / "MLmodel").write_text(text)
    with pytest.raises(LoadFailed, match=reason) as caught:
        registry.load(load_spec(model_dir))
    assert str(model_dir / "1" / "MLmodel") in str(caught.value)


@pytest.mark.parametrize("path", ["../../other/model.skops", "/etc/passwd", "a/../../b"])
def test_paths_stay_inside(model_dir: Path, path: str) -> None:
    write_mlmodel(model_dir, {"sklearn": {"pickled_model": path}})
    file = read_model_file(model_dir / "1")
    with pytest.raises(
        LoadFailed, match=r"flavors\.sklearn\.pickled_model is .* inside of the mod"
    ):
        file.inside("sklearn", "pickled_model")
    with pytest.raises(LoadFailed, match=r"flavors\.sklearn\.code is None, expected a text"):
        file.inside("sklearn", "code")


# ── signatures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tensors() -> None:
    schema = parse_schema(tensors((None, "float64", [-1, 3, -1])), "here", "input-")
    (field,) = schema.fields
    assert (field.name, field.label, field.data_type) == ("input-0", 0, "TYPE_FP64")
    assert (field.shape, schema.columns, schema.named) == ((-1, 3, -1), False, False)
    assert schema.renamed(["IMAGE"]).fields[0].name == "IMAGE"
    named = parse_schema(tensors(("x", "bool", [2]), ("y", "str", [-1])), "here", "input-")
    assert [f.data_type for f in named.fields] == ["TYPE_BOOL", "TYPE_STRING"]
    assert named.renamed(["a", "b"]) is named


def test_columns() -> None:
    types = ["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]
    schema = parse_schema(columns(*((f"c {t}", t) for t in types)), "here", "input-")
    assert [field.name for field in schema.fields] == [f"c {t}" for t in types]
    assert [field.data_type.removeprefix("TYPE_") for field in schema.fields] == [
        *("BOOL", "INT32", "INT64", "FP32", "FP64"),
        *["STRING"] * 3,
    ]
    assert all(field.is_scalar and not field.optional for field in schema.fields)
    assert schema.columns


def test_columns_that_are_not_plain() -> None:
    array = {"type": "array", "items": {"type": "double"}}
    given = [
        {"name": 0, "type": "array", "items": array},
        {"name": "vector", "type": "sparkml_vector"},
        {"name": "object", "type": "object", "properties": {}, "required": False},
        {"name": "objects", "type": "array", "items": {"type": "object", "properties": {}}},
        {"name": "any", "type": "any", "required": None},
    ]
    fields = parse_schema(json.dumps(given), "here", "input-").fields
    assert [(f.name, f.label) for f in fields[:2]] == [("0", 0), ("vector", "vector")]
    assert [f.shape for f in fields[:2]] == [(-1, -1, -1), (-1, -1)]
    assert [(f.kind, f.shape) for f in fields[2:]] == [(Kind.JSON, (-1, 1))] * 3
    assert [f.optional for f in fields[2:]] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "here is no JSON"),
        ("{}", "expected a list of columns or tensors"),
        ("[]", "expected a list"),
        ("[1]", "expected a list"),
        (columns(("a", "double"))[:-1] + "," + tensors(("b", "int8", [1]))[1:], "mixes columns"),
        (columns(("a", "double"), (None, "double")), "names for some only"),
        (columns(("a", "double"), ("a", "long")), "a name twice: a, a"),
        (tensors((None, "int8", [1]), (None, "int8", [1])), "several tensors without names"),
        (columns(("a", "complex")), r"here\[0\] has type 'complex', expected tensor, array, or "),
        (tensors(("a", "complex64", [1])), "dtype 'complex64', which can't be served"),
        (tensors(("a", "int8", [-2])), r"has shape \[-2\]"),
        ('[{"type": "tensor"}]', "no tensor-spec with dtype and shape"),
        ('[{"type": "tensor", "tensor-spec": {"dtype": "int8", "shape": 3}}]', "has shape 3"),
        ('[{"type": "array"}]', "has type 'array'"),
    ],
)
def test_a_signature_that_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(LoadFailed, match=reason):
        parse_schema(text, "here", "input-")


def test_no_signature(model_dir: Path) -> None:
    write_mlmodel(model_dir, SKLEARN)
    with pytest.raises(
        LoadFailed, match=r"has no signature, so inputs are not known.*set_signature"
    ):
        registry.load(load_spec(model_dir))
    write_mlmodel(model_dir, SKLEARN, signature={"inputs": columns(("a", "double"))})
    with pytest.raises(LoadFailed, match="has a signature without outputs, so outputs are not kno"):
        registry.load(load_spec(model_dir))


def test_the_configuration_in_its_place() -> None:
    config: dict[str, Any] = {
        "max_batch_size": 8,
        "input": [
            {"name": "a", "data_type": "TYPE_STRING", "dims": [1]},
            {"name": "b", "data_type": "TYPE_FP32", "dims": [1], "optional": True},
        ],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [4]}, {"name": "z"}],
    }
    schema = configured_schema(config, "input", columns=None)
    assert schema.columns
    assert [(f.shape, f.kind, f.optional) for f in schema.fields] == [
        ((-1, 1), Kind.TEXT, False),
        ((-1, 1), Kind.NUMBER, True),
    ]
    tensors_by_name = configured_schema(config, "input", columns=False)
    assert (tensors_by_name.columns, tensors_by_name.named) == (False, True)
    one = {"input": config["input"][1:]}
    for columns_wanted in (None, False):
        schema = configured_schema(one, "input", columns=columns_wanted)
        assert (schema.columns, schema.named) == (False, False)
    with pytest.raises(LoadFailed, match="output 'z' has no data_type or no dims"):
        configured_schema(config, "output", columns=None)


# ── parameters ──────────────────────────────────────────────────────────────────────────────────────────────────────


def params(*given: dict[str, Any]) -> str:
    return json.dumps(given)


PARAMS = params(
    {"name": "k", "type": "long", "default": 3, "shape": None},
    {"name": "i", "dtype": "integer", "default": 3},
    {"name": "f", "type": "double", "default": 0.5, "shape": None},
    {"name": "b", "type": "boolean", "default": False},
    {"name": "s", "type": "string", "default": "x"},
    {"name": "t", "type": "datetime", "default": "2026-01-02T03:04:05"},
    {"name": "l", "type": "double", "default": [1.0], "shape": [-1]},
    {"name": "o", "type": "object", "default": {}, "properties": {}},
)


def test_parameters() -> None:
    found = parse_params(PARAMS, "here")
    assert found
    defaults = found.read({})
    assert (defaults["k"], defaults["f"], defaults["l"], defaults["s"]) == (3, 0.5, [1.0], "x")
    assert defaults["t"].year == 2026
    given: dict[str, Any] = {
        "k": 2**40,
        "f": 2,
        "b": True,
        "t": "2027-01-01",
        "l": "[1, 2.5]",
        "o": '{"a": 1}',
    }
    read = found.read({**given, "other": "left out"})
    assert (read["k"], read["f"], read["b"], read["l"]) == (2**40, 2.0, True, [1.0, 2.5])
    assert isinstance(read["f"], float)
    assert (read["t"].year, read["o"]) == (2027, {"a": 1})
    assert not parse_params(None, "here")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("k", "3", "a long"),
        ("k", True, "a long"),
        ("k", 1.0, "a long"),
        ("i", 2**31, "a integer"),
        ("f", "0.5", "a double"),
        ("b", 1, "a boolean"),
        ("s", 1, "a string"),
        ("t", "yesterday", "a datetime"),
        ("l", "[true]", "a JSON list of double"),
        ("l", "1", "a JSON list of double"),
        ("l", 1.0, "a JSON list of double"),
        ("o", "[", "a JSON object"),
    ],
)
def test_a_parameter_that_is_wrong(name: str, value: Any, expected: str) -> None:
    with pytest.raises(InvalidRequest, match=f"parameter '{name}' is .*, expected {expected}"):
        parse_params(PARAMS, "here").read({name: value})


def test_what_makes_parameters_equal() -> None:
    found = parse_params(PARAMS, "here")
    assert found.key({"k": 1, "other": 2}) == found.key({"k": 1})
    assert len({found.key({"k": value}) for value in (1, 1.0, True, 2)} | {found.key({})}) == 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "no JSON"),
        ("{}", "expected a list"),
        ("[1]", r"here\[0\] is 1, expected a mapping with name"),
        (params({"name": "a", "type": "binary"}), "has type 'binary', expected one of"),
        (params({"name": "a", "type": "datetime", "default": "soon"}), "default 'soon'"),
    ],
)
def test_a_declaration_that_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(LoadFailed, match=reason):
        parse_params(text, "here")
