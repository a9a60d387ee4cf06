"""Python functions, saved by MLflow and loaded as a worker would."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlflow_models as saved
from mlflow_loaded import edit, load, pickle_in, predict, shapes, with_parameters
from mlflow_models import X, libraries
from model_files import batch_of, each
from penstock.backends.base import LoadedModel
from penstock.errors import InvalidRequest, LoadFailed, ModelFailed
from penstock.types import Array

pytestmark = [
    pytest.mark.extension("mlflow"),
    # of the libraries that load the models; a worker shows them in its log
    pytest.mark.filterwarnings("ignore"),
]


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
