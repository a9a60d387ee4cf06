"""Models of scikit-learn and XGBoost, saved by MLflow and loaded as a worker would, against the models themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlflow_models as saved
from mlflow_loaded import edit, load, pickle_in, predict, shapes, with_parameters
from mlflow_models import LABELS, X, columns, libraries, tensors
from model_files import batch_of, each, whole
from penstock.errors import LoadFailed, ModelFailed
from penstock.trust.pickles import find_pickle

pytestmark = [
    pytest.mark.extension("mlflow"),
    # of the libraries that load the models; a worker shows them in its log
    pytest.mark.filterwarnings("ignore"),
]


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


# ── all of them ─────────────────────────────────────────────────────────────────────────────────────────────────────


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


assert LABELS.any() and not LABELS.all(), "the examples have one class only"
