"""Champions of other flavours than ONNX, judged on the same rows as the new version."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

import mlflow_models
from penstock_training.champion import champion_of
from penstock_training.gates import Champion
from penstock_training.register_config import ChampionGate
from penstock_training.registry import Registry
from trained import CLASSES, PlaneRecipe, config_of, good_model, points

ROWS = points(600, 3)
TRAIN = points(300, 1)
X = TRAIN.points.numpy().astype(np.float64)
LABELS = TRAIN.label.numpy()

Write = Callable[[Path], None]


class OneVersion:
    """A registry whose champion is what `write` makes."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def by_alias(self, alias: str) -> Any:
        return SimpleNamespace(version="3", tags={})

    def fetch_version(self, version: int, folder: Path) -> None:
        folder.parent.mkdir(parents=True)
        self._write(folder)


def judged(tmp_path: Path, write: Write, *, allow_code: bool = False) -> Champion:
    recipe = PlaneRecipe(config_of(tmp_path, "sqlite://"), PlaneRecipe.Options())
    registry = cast(Registry, OneVersion(write))
    gate = ChampionGate(allow_code=allow_code)
    found = champion_of(registry, gate, recipe, ROWS, tmp_path / "champion")
    assert found is not None
    assert not (tmp_path / "champion").exists()
    return found


def saved(
    flavor: str, model: Any, folder: Path, example: Any, outputs: Any, **options: Any
) -> None:
    """As `save_model` does, in the folder that is asked for."""
    signature = mlflow_models.infer_signature(example, outputs)
    made = mlflow_models.save(flavor, folder.parent / "made", model, signature=signature, **options)
    made.rename(folder)
    made.parent.rmdir()


def regression(labels: Any, **options: Any) -> Write:
    linear = mlflow_models.libraries().sklearn.linear_model
    model = linear.LogisticRegression().fit(X, labels)
    options.setdefault("serialization_format", "skops")
    return lambda folder: saved("sklearn", model, folder, X, model.predict(X), **options)


def boosted(folder: Path) -> None:
    xgboost = mlflow_models.libraries().xgboost
    settings = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    model = xgboost.train(settings, xgboost.DMatrix(X, LABELS), num_boost_round=5)
    saved("xgboost", model, folder, X, model.predict(xgboost.DMatrix(X)), model_format="json")


def module(folder: Path) -> None:
    model = torch.nn.Sequential(good_model(), torch.nn.Softmax(dim=1))
    example = TRAIN.points
    outputs = model(example).detach().numpy()
    saved("pytorch", model, folder, example.numpy(), outputs, serialization_format="pickle")


@pytest.mark.parametrize(
    ("write", "allow_code"),
    [
        (lambda folder: regression(LABELS)(folder), False),
        (boosted, False),
        (module, True),
    ],
    ids=["sklearn", "xgboost", "torch"],
)
def test_champions_of_other_flavours_are_run_on_the_same_rows(
    tmp_path: Path, write: Write, allow_code: bool
) -> None:
    found = judged(tmp_path, write, allow_code=allow_code)
    assert found.problem == ""
    assert found.metrics["accuracy"] > 0.9
    assert found.metrics["log_loss"] < 0.4
    assert found.metrics["left_right"] > 0.9


def test_a_pickle_is_read_only_where_that_is_allowed(tmp_path: Path) -> None:
    problem = judged(tmp_path, module).problem
    assert "may run any code" in problem
    assert "set register.gates.champion.allow_code = true" in problem


def test_classes_in_another_order_are_no_comparison(tmp_path: Path) -> None:
    names = np.array(["a", "b", "c"])[LABELS]
    assert "its classes are not the recipe's" in judged(tmp_path, regression(names)).problem
    # scikit-learn sorts them
    named = judged(tmp_path, regression(np.array(CLASSES)[LABELS]))
    assert "its classes are not the recipe's, or have another order" in named.problem
    shifted = judged(tmp_path, regression(LABELS + 1)).problem
    assert "its classes are not the recipe's" in shifted


def test_what_takes_something_else_says_so(tmp_path: Path) -> None:
    linear = mlflow_models.libraries().sklearn.linear_model
    wide = np.concatenate([X, X], axis=1)
    model = linear.LogisticRegression().fit(wide, LABELS)

    def write(folder: Path) -> None:
        saved("sklearn", model, folder, wide, model.predict(wide), serialization_format="skops")

    problem = judged(tmp_path, write).problem
    assert problem == "its input 'input-0' has the shape [4]; the recipe's has [2]"


def test_what_is_no_model_of_mlflow_says_what_it_is(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "model.py").write_text("")

    problem = judged(tmp_path, write).problem
    assert problem.startswith("it is a model of the backend python; models that MLflow has saved")
