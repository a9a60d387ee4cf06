"""Models that are loaded, by flavour: what MLflow's `predict` would return, without MLflow where that is enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

import numpy as np

from penstock.errors import LoadFailed

PICKLES_ALLOWED: Final = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
"""MLflow's own switch: what it forbids is not read here either."""


@dataclass(frozen=True, slots=True)
class Probabilities:
    """A classifier's."""

    classes: int
    of: Callable[[Any], Any]
    """The data → that of each class, for each row. Raises anything."""


class Flavor(Protocol):
    """A model that is loaded."""

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        """What MLflow's `predict` would return for it. Raises anything."""
        ...

    @property
    def probabilities(self) -> Probabilities | None:
        """What it says beside its prediction; None: nothing."""
        ...

    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """The inputs' shapes, of a model that knows better than its signature; else empty."""
        ...


class Plain:
    """What most flavours have in common: no probabilities, and nothing to say of shapes."""

    @property
    def probabilities(self) -> Probabilities | None:
        """None."""
        return None

    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Unknown."""
        return ()


class Sklearn(Plain):
    """An estimator of scikit-learn, or of what has its interface."""

    def __init__(self, estimator: Any, method: str) -> None:
        self._estimator = estimator
        self._predict = getattr(estimator, method)
        self._method = method

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        """Like MLflow, it takes no parameters."""
        return self._predict(data)

    @property
    def probabilities(self) -> Probabilities | None:
        """Those of a classifier of one label that has them."""
        if self._method != "predict" or not hasattr(self._estimator, "predict_proba"):
            return None
        classes = getattr(self._estimator, "classes_", None)
        if not isinstance(classes, np.ndarray) or classes.ndim != 1 or not len(classes):
            return None
        return Probabilities(len(classes), self._estimator.predict_proba)


class Booster(Plain):
    """XGBoost's own class."""

    def __init__(self, booster: Any, matrix: Callable[[Any], Any]) -> None:
        self._booster = booster
        self._matrix = matrix

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        """Parameters are those of `Booster.predict`."""
        return self._booster.predict(self._matrix(data), **params)


class XgbModel(Sklearn):
    """One of XGBoost's classes that are like scikit-learn's."""

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        """Parameters are those of its `predict`."""
        return self._predict(data, **params)


class Pyfunc(Plain):
    """Anything that MLflow can load as a Python function."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        """MLflow checks data and parameters against the signature once more."""
        return self._model.predict(data, params=dict(params) or None)


def module(name: str, package: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise LoadFailed(
            f"the model needs the package {package}, which can't be imported: {error}"
        ) from error


def check_pickles(path: Path) -> None:
    if os.environ.get(PICKLES_ALLOWED, "true").lower() not in ("true", "1"):
        raise LoadFailed(
            f"{path} runs code when it is read, which {PICKLES_ALLOWED} forbids in the server's environment"
        )
