"""Models of all flavours, saved by MLflow and loaded as a worker would, against the models themselves."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

import mlflow_models as saved
from mlflow_models import LABELS, X, columns, libraries, tensors
from model_files import batch_of, each, load_spec, whole, write_onnx
from penstock.backends import registry
from penstock.backends.base import Batch, LoadedModel
from penstock.backends.mlflow_torch import load_pytorch
from penstock.errors import InvalidRequest, LoadFailed, ModelFailed
from penstock.model_config import ConfigDict
from penstock.trust.pickles import find_pickle
from penstock.types import Array, Parameter

pytestmark = [
    pytest.mark.extension("mlflow"),
    # of the libraries that load the models; a worker shows them in its log
    pytest.mark.filterwarnings("ignore"),
]


def load(model_dir: Path, config: ConfigDict | None = None, threads: int = 1) -> LoadedModel:
    return registry.load(load_spec(model_dir, config, threads))


def predict(model: LoadedModel, *requests: dict[str, Array], **options: Any) -> dict[str, Array]:
    return dict(whole(model.execute(batch_of(*requests, **options))))


def with_parameters(batch: Batch, *parameters: dict[str, Parameter]) -> Batch:
    infos = [
        msgspec.structs.replace(info, parameters=given)
        for info, given in zip(batch.requests, parameters, strict=True)
    ]
    return Batch(batch.inputs, infos)


def shapes(model: LoadedModel, key: str) -> list[tuple[str, str, list[int]]]:
    return [(t["name"], t["data_type"], t["dims"]) for t in model.config[key]]


def edit(model_dir: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a saved MLmodel file."""
    path = model_dir / "1" / "MLmodel"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


# ── scikit-learn ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sklearn(model_dir: Path) -> None:
    native = saved.write_sklearn(model_dir)
    model = load(model_dir)
    assert shapes(model, "input") == [("input-0", "TYPE_FP32", [3])]
    assert shapes(model, "output") == [
        ("output-0", "TYPE_INT64", []),
        ("probabilities", "TYPE_FP64", [2]),
    ]
    assert model.config["max_batch_size"] == 64
    assert model.config["dynamic_batching"] == {}
    found = predict(model, {"input-0": X[:2]}, {"input-0": X[2:7]})
    np.testing.assert_array_equal(found["output-0"], native.predict(X[:7]))
    np.testing.assert_allclose(found["probabilities"], native.predict_proba(X[:7]), rtol=1e-6)
    model.close()


def test_only_what_is_asked_for_is_computed(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = saved.write_sklearn(model_dir)
    model = load(model_dir)
    calls: list[str] = []

    def called(method: str, x: Any) -> Any:
        calls.append(method)
        return x

    for method in ("predict", "predict_proba"):
        monkeypatch.setattr(type(native), method, lambda _, x, m=method: called(m, x))
    model = load(model_dir)
    with pytest.raises(ModelFailed, match="'probabilities' has shape"):
        model.execute(batch_of({"input-0": X[:1]}, outputs=[["probabilities"]]))
    assert calls == ["predict_proba"]


def test_names_from_the_configuration(model_dir: Path) -> None:
    native = saved.write_sklearn(model_dir)
    config = {
        "max_batch_size": 8,
        "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [3]}],
        "output": [{"name": "CLASS", "data_type": "TYPE_INT64", "dims": [1], "reshape": {}}],
    }
    model = load(model_dir, config)
    found = predict(model, {"X": X[:4]})
    assert found["CLASS"].tolist() == native.predict(X[:4])[:, None].tolist()
    with pytest.raises(LoadFailed, match="input 'X': the model has TYPE_FP32, the configuration T"):
        load(model_dir, {**config, "input": [{"name": "X", "data_type": "TYPE_FP64", "dims": [3]}]})


@pytest.mark.parametrize("form", ["pickle", "cloudpickle"])
def test_pickled_estimators(model_dir: Path, form: str) -> None:
    native = saved.write_sklearn(model_dir, serialization_format=form)
    found = predict(load(model_dir), {"input-0": X[:2]})
    np.testing.assert_array_equal(found["output-0"], native.predict(X[:2]))
    assert "called .pkl" in pickle_in(model_dir, "model.pkl")
    edit(model_dir, lambda c: c["flavors"]["python_function"].update(python_version="3.7.1"))
    if form == "pickle":
        load(model_dir)
    else:
        with pytest.raises(LoadFailed, match="pickled functions no other can run"):
            load(model_dir)


@pytest.mark.parametrize("method", ["predict_proba", "decision_function"])
def test_another_method(model_dir: Path, method: str) -> None:
    """MLflow's pyfunc_predict_fn: the signature is that method's."""
    native = saved.classifier()
    outputs = getattr(native, method)(X)
    signature = saved.infer_signature(X, outputs)
    saved.write_sklearn(model_dir, native, signature=signature, pyfunc_predict_fn=method)
    model = load(model_dir)
    assert [name for name, _, _ in shapes(model, "output")] == ["output-0"]
    found = predict(model, {"input-0": X[:5]})
    np.testing.assert_allclose(found["output-0"], outputs[:5], rtol=1e-6)


def test_a_table_of_mixed_columns(model_dir: Path) -> None:
    native = saved.write_table(model_dir)
    model = load(model_dir)
    assert shapes(model, "input") == [
        ("city", "TYPE_STRING", [1]),
        ("age", "TYPE_INT32", [1]),
        ("income", "TYPE_FP64", [1]),
        ("member", "TYPE_BOOL", [1]),
    ]
    assert shapes(model, "output")[0] == ("class", "TYPE_STRING", [1])
    table = saved.people()[:6]
    arrays = {name: table[name].to_numpy()[:, None] for name in table.columns}
    arrays["city"] = np.array([[city.encode()] for city in table["city"]], np.object_)
    found = predict(
        model, {n: a[:1] for n, a in arrays.items()}, {n: a[1:] for n, a in arrays.items()}
    )
    assert found["class"].ravel().tolist() == [c.encode() for c in native.predict(table)]
    np.testing.assert_allclose(found["probabilities"], native.predict_proba(table))


def test_regression_and_what_is_shared_of_cores(model_dir: Path) -> None:
    forest = libraries().sklearn.ensemble.RandomForestRegressor(5, n_jobs=7).fit(X, X[:, 0])
    trusted = ["sklearn.tree._tree.Tree", "numpy.dtype"]
    saved.write_sklearn(model_dir, forest, skops_trusted_types=trusted)
    model = load(model_dir, threads=3)
    assert shapes(model, "output") == [("output-0", "TYPE_FP64", [])]
    found = predict(model, {"input-0": X[:5]})
    np.testing.assert_allclose(found["output-0"], forest.predict(X[:5]))
    assert "as good as one, for its skops_trusted_types" in pickle_in(model_dir, "MLmodel")


def test_errors_of_the_model(model_dir: Path) -> None:
    saved.write_sklearn(model_dir)
    model = load(model_dir)
    bad = X[:2].copy()
    bad[1, 1] = np.nan
    answers = each(model.execute(batch_of({"input-0": X[:2]}, {"input-0": bad})))
    assert answers[0]["output-0"].shape == (2,)
    assert isinstance(answers[1], ModelFailed)
    assert "ValueError: Input X contains NaN" in str(answers[1])


def test_inputs_that_can_be_no_table(model_dir: Path) -> None:
    signature = {"inputs": tensors(("a", "int8", [-1]), ("b", "int8", [-1])), "outputs": "[]"}
    flavors = {"sklearn": {"pickled_model": "m"}, "xgboost": {"data": "m"}}
    for flavor in flavors:
        saved.write_mlmodel(model_dir, {flavor: flavors[flavor]}, signature=signature)
        (model_dir / "1" / "m").touch()
        config = {"output": [{"name": "y", "data_type": "TYPE_INT8", "dims": [1]}]}
        edit(model_dir, lambda content: content["signature"].pop("outputs"))
        with pytest.raises(
            LoadFailed, match="takes a table or one tensor, the inputs are tensors a, b"
        ):
            load(model_dir, config)


# ── XGBoost ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_xgboost(model_dir: Path) -> None:
    native = saved.write_xgboost(model_dir)
    model = load(model_dir, threads=2)
    found = predict(model, {"input-0": X[:1]}, {"input-0": X[1:9]})
    np.testing.assert_array_equal(found["output-0"], native.predict(X[:9]))
    np.testing.assert_allclose(found["probabilities"], native.predict_proba(X[:9]), rtol=1e-6)


def test_a_booster_of_columns(model_dir: Path) -> None:
    native = saved.write_booster(model_dir)
    model = load(model_dir)
    arrays = {name: X[:5, [i]] for i, name in enumerate("abc")}
    table = libraries().pandas.DataFrame(X[:5], columns=["a", "b", "c"])
    matrix = libraries().xgboost.DMatrix(table)
    batch = batch_of({n: a[:2] for n, a in arrays.items()}, {n: a[2:] for n, a in arrays.items()})
    (name,) = (name for name, _, _ in shapes(model, "output"))
    found = whole(model.execute(batch))
    np.testing.assert_allclose(found[name], native.predict(matrix), rtol=1e-6)
    batch = with_parameters(batch, {"output_margin": True}, {"output_margin": True})
    np.testing.assert_allclose(
        whole(model.execute(batch))[name], native.predict(matrix, output_margin=True), rtol=1e-6
    )


def test_a_class_that_is_not_xgboosts(model_dir: Path) -> None:
    saved.write_xgboost(model_dir)
    edit(model_dir, lambda c: c["flavors"]["xgboost"].update(model_class="os.path.Booster"))
    with pytest.raises(
        LoadFailed, match=r"model_class is 'os\.path\.Booster', expected a class of x"
    ):
        load(model_dir)
    edit(model_dir, lambda c: c["flavors"]["xgboost"].pop("model_class"))
    (model_dir / "1" / "model.ubj").write_bytes(b"garbage")
    with pytest.raises(LoadFailed, match="the xgboost flavour can't be loaded: XGBoostError"):
        load(model_dir)


# ── PyTorch ─────────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── Python functions ────────────────────────────────────────────────────────────────────────────────────────────────


def orders(*items: str, discount: bool = False) -> dict[str, Array]:
    rows = len(items)
    given = {
        "item": np.array([[item.encode()] for item in items], np.object_),
        "price": np.full((rows, 1), 10.0),
        "ordered": np.array([[b"2026-01-05T12:00:00"]] * rows, np.object_),
    }
    return {**given, "discount": np.full((rows, 1), 1.0)} if discount else given


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    model_dir = tmp_path_factory.mktemp("models") / "shop"
    saved.write_shop(model_dir)
    return load(model_dir)


def test_pyfunc(shop: LoadedModel) -> None:
    assert [(t["name"], t.get("optional", False)) for t in shop.config["input"]] == [
        *(("item", False), ("price", False), ("ordered", False), ("discount", True)),
    ]
    assert shapes(shop, "output") == [
        ("label", "TYPE_STRING", [1]),
        ("total", "TYPE_FP64", [1]),
        ("orders", "TYPE_INT64", [1]),
    ]
    found = predict(shop, orders("pen"), orders("ink", "cup"))
    assert found["label"].ravel().tolist() == [
        f"{i} EUR Monday".encode() for i in ("pen", "ink", "cup")
    ]
    assert found["total"].ravel().tolist() == [10, 10, 10]
    assert found["orders"].ravel().tolist() == [3, 3, 3], "the rows were not joined"
    found = predict(shop, orders("pen", discount=True))
    assert found["total"].tolist() == [[9.0]]


def test_requests_of_different_parameters(shop: LoadedModel) -> None:
    batch = with_parameters(
        batch_of(orders("a"), orders("b", "c"), orders("d"), orders("e"), orders("f")),
        {"factor": 2.0},
        {},
        {"factor": 2.0, "other": 1},
        {"factor": "two"},
        {"currency": "CHF"},
    )
    answers = each(shop.execute(batch))
    assert answers[0]["total"].tolist() == answers[2]["total"].tolist() == [[20.0]]
    assert answers[0]["orders"].tolist() == answers[2]["orders"].tolist() == [[2]]
    assert answers[0]["label"].tolist() == [[b"a EUR Monday"]]
    assert answers[2]["label"].tolist() == [[b"d EUR Monday"]]
    assert answers[1]["total"].tolist() == [[10.0], [10.0]]
    assert isinstance(answers[3], InvalidRequest)
    assert str(answers[3]) == "parameter 'factor' is 'two', expected a double"
    assert answers[4]["label"].tolist() == [[b"f CHF Monday"]]


def test_one_that_fails_alone_with_its_parameters(shop: LoadedModel) -> None:
    """The others, whose parameters differ, have their answers all the same."""
    asked = batch_of(orders("broken"), orders("b"), orders("broken"), orders("d"))
    batch = with_parameters(asked, {"factor": 2.0}, {}, {"factor": 3.0}, {"factor": 3.0})
    answers = each(shop.execute(batch))
    for index in (0, 2):
        assert str(answers[index]) == "ValueError: a broken item can't be priced"
    assert answers[1]["total"].tolist() == [[10.0]]
    assert answers[3]["total"].tolist() == [[30.0]]
    # what may not be run again fails together, but not the others
    once = dataclasses.replace(batch, repeatable=False)
    answers = each(shop.execute(once))
    assert [isinstance(answer, ModelFailed) for answer in answers] == [True, False, True, True]


def test_a_request_that_fails_leaves_the_others_alone(shop: LoadedModel) -> None:
    wrong = orders("x")
    wrong["ordered"][0, 0] = b"soon"
    answers = each(shop.execute(batch_of(orders("a"), orders("broken"), wrong)))
    assert answers[0]["label"].tolist() == [[b"a EUR Monday"]]
    assert isinstance(answers[1], ModelFailed)
    assert str(answers[1]) == "ValueError: a broken item can't be priced"
    assert isinstance(answers[2], InvalidRequest)
    assert "input 'ordered' is 'soon'" in str(answers[2])


def test_a_pickled_function_and_its_artifacts(model_dir: Path, tmp_path: Path) -> None:
    """Saved as a pickle of cloudpickle, as MLflow has always done."""

    class Scaled(libraries().mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def load_context(self, context: Any) -> None:
            self.factor = float(Path(context.artifacts["factor"]).read_text())

        def predict(self, context: Any, model_input: Any) -> Any:
            return model_input * self.factor

    (tmp_path / "factor.txt").write_text("3")
    saved.save(
        "pyfunc",
        model_dir,
        python_model=Scaled(),
        artifacts={"factor": str(tmp_path / "factor.txt")},
        signature=saved.infer_signature(X, X),
    )
    assert "called .pkl" in pickle_in(model_dir, "python_model.pkl")
    np.testing.assert_array_equal(
        predict(load(model_dir), {"input-0": X[:2]})["output-0"], X[:2] * 3
    )
    conf = "python_function"
    edit(model_dir, lambda c: c["flavors"][conf].update(python_version="3.7.1"))
    with pytest.raises(
        LoadFailed, match=r"is from Python 3\.7\.1, whose pickled functions no other"
    ):
        load(model_dir)
    edit(model_dir, lambda c: c["flavors"][conf].update(python_model="/tmp/other.pkl"))
    with pytest.raises(LoadFailed, match="inside of the model's folder"):
        load(model_dir, {"parameters": {"mlflow_requirements": {"string_value": "warn"}}})


def test_type_hints(model_dir: Path) -> None:
    """MLflow makes the signature of them, and wants lists."""
    saved.save("pyfunc", model_dir, python_model=str(saved.APPS / "mlflow_hints.py"))
    model = load(model_dir)
    assert shapes(model, "input") == [("input-0", "TYPE_STRING", [1])]
    found = predict(model, {"input-0": np.array([[b"a"], [b"bc"]], np.object_)})
    assert found["output-0"].tolist() == [[b"A"], [b"BC"]]


def test_a_native_model_as_a_function(model_dir: Path) -> None:
    native = saved.write_sklearn(model_dir)
    model = load(model_dir, {"parameters": {"mlflow_flavor": {"string_value": "python_function"}}})
    assert shapes(model, "output") == [("output-0", "TYPE_INT64", [])]
    found = predict(model, {"input-0": X[:3]})
    np.testing.assert_array_equal(found["output-0"], native.predict(X[:3]))


@pytest.mark.parametrize("write", [saved.write_sklearn, saved.write_xgboost])
def test_a_model_of_one_array_without_signature(
    model_dir: Path, write: Callable[[Path], Any]
) -> None:
    """The array itself is what they take, by whatever name requests have it."""
    native = write(model_dir)
    edit(model_dir, lambda content: content.pop("signature"))
    config = {
        "max_batch_size": 8,
        "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [3]}],
        "output": [{"name": "CLASS", "data_type": "TYPE_INT64", "dims": [1]}],
    }
    found = predict(load(model_dir, config), {"X": X[:4]})
    assert found["CLASS"].ravel().tolist() == native.predict(X[:4]).tolist()


def test_a_model_without_signature(model_dir: Path) -> None:
    native = saved.write_booster(model_dir)
    edit(model_dir, lambda content: content.pop("signature"))
    config = {
        "max_batch_size": 4,
        "input": [{"name": n, "data_type": "TYPE_FP32", "dims": [1]} for n in "abc"],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1]}],
    }
    found = predict(load(model_dir, config), {n: X[:2, [i]] for i, n in enumerate("abc")})
    table = libraries().pandas.DataFrame(X[:2], columns=["a", "b", "c"])
    expected = native.predict(libraries().xgboost.DMatrix(table))
    np.testing.assert_allclose(found["y"][:, 0], expected, rtol=1e-6)
    for form, reason in (
        ("rows", "'rows', expected one of columns, tensors"),
        ("tensors", "one tens"),
    ):
        given = {"parameters": {"mlflow_inputs": {"string_value": form}}}
        with pytest.raises(LoadFailed, match=reason):
            load(model_dir, {**config, **given})


# ── ONNX ────────────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── all of them ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"serialization_format": "joblib"}, "format is 'joblib', expected skops, pickle or cloud"),
        ({"serialization_format": "pickle"}, "sklearn flavour can't be loaded: UnpicklingError"),
        ({"pickled_model": "gone.skops"}, "pickled_model is 'gone.skops', which is not there"),
        ({"pickled_model": 3}, "pickled_model is 3, expected a text"),
        ({"code": "gone"}, "code is 'gone', which is not there"),
    ],
)
def test_a_flavour_that_is_wrong(model_dir: Path, conf: dict[str, Any], reason: str) -> None:
    saved.write_sklearn(model_dir)
    edit(model_dir, lambda content: content["flavors"]["sklearn"].update(conf))
    with pytest.raises(LoadFailed, match=reason):
        load(model_dir)


def test_what_old_versions_wrote(model_dir: Path) -> None:
    """MLflow 1: no versions, no format of pickles, signatures without `required`."""
    import pickle

    native = saved.classifier()
    flavors = {
        "python_function": {
            "loader_module": "mlflow.sklearn",
            "model_path": "model.pkl",
            "env": "conda.yaml",
        },
        "sklearn": {"pickled_model": "model.pkl", "sklearn_version": "0.23"},
    }
    signature = {
        "inputs": columns(("a", "float"), ("b", "float"), ("c", "float")),
        "outputs": tensors((None, "int64", [-1])),
    }
    saved.write_mlmodel(model_dir, flavors, signature=signature)
    (model_dir / "1" / "model.pkl").write_bytes(pickle.dumps(native))
    model = load(model_dir)
    found = predict(model, {n: X[:3, [i]] for i, n in enumerate("abc")})
    np.testing.assert_array_equal(found["output-0"], native.predict(X[:3]))


def test_mlflows_own_switch_holds(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved.write_sklearn(model_dir, serialization_format="pickle")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(LoadFailed, match="MLFLOW_ALLOW_PICKLE_DESERIALIZATION forbids"):
        load(model_dir)


def test_the_models_own_code(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sibling_of_model.py").write_text("def double(x):\n    return x * 2\n")
    source = tmp_path / "model.py"
    source.write_text(
        "import mlflow\nfrom sibling_of_model import double\n\n\n"
        "class Doubled(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input):\n        return double(model_input)\n\n\n"
        "mlflow.models.set_model(Doubled())\n"
    )
    with monkeypatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        saved.save(
            "pyfunc",
            model_dir,
            python_model=str(source),
            code_paths=[str(tmp_path / "sibling_of_model.py")],
            signature=saved.infer_signature(X, X),
        )
    np.testing.assert_array_equal(
        predict(load(model_dir), {"input-0": X[:2]})["output-0"], X[:2] * 2
    )
    assert not list(model_dir.rglob("__pycache__"))


def test_decoupled(model_dir: Path) -> None:
    saved.write_sklearn(model_dir)
    with pytest.raises(
        LoadFailed, match="decoupled is true, but an MLflow model gives each request one"
    ):
        load(model_dir, {"backend": "mlflow", "model_transaction_policy": {"decoupled": True}})


def test_requirements_are_checked_first(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    saved.write_sklearn(model_dir, pip_requirements=["no-such-package==1", "scikit-learn==0.1"])
    (model_dir / "1" / "model.skops").unlink()
    with pytest.raises(LoadFailed, match="needs no-such-package==1: not installed here"):
        load(model_dir)


def pickle_in(model_dir: Path, name: str) -> str:
    """What makes a file of the version one that runs code."""
    with (model_dir / "1" / name).open("rb") as file:
        return find_pickle(file, f"1/{name}")


def test_what_a_skops_file_may_make(model_dir: Path) -> None:
    """With types that skops knows, nothing that could run code; the model's own list of types may name any."""
    saved.write_sklearn(model_dir)
    assert {pickle_in(model_dir, p.name) for p in (model_dir / "1").iterdir()} == {""}
    found = find_pickle(
        BytesIO(b"flavors: {sklearn: {skops_trusted_types: os.system}}"), "1/MLmodel"
    )
    assert "allow skops to make 'os.system'" in found
    for text in (
        b"",
        b"{",
        b"flavors: {sklearn: 3}",
        b"flavors: {sklearn: {skops_trusted_types: []}}",
    ):
        assert find_pickle(BytesIO(text), "MLmodel") == ""


def test_programs_of_torch_by_their_content() -> None:
    """Whatever they are called: what is in them is run when they are loaded."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("net/archive_format", "pt2")
        file.writestr("net/models/net.json", "{}")
    assert "torch.export" in find_pickle(archive, "net.bin")
    assert "torch.export" in find_pickle(BytesIO(b""), "net.pt2")


assert LABELS.any() and not LABELS.all(), "the examples have one class only"
