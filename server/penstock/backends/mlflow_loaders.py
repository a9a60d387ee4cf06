"""Loads the model itself, by flavour: with its own library where that is enough, through MLflow where it has to be.

MLflow takes two seconds to be imported, so scikit-learn, XGBoost and PyTorch models are read without it, as its own
loaders read them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

from penstock.backends.isolation import one_line
from penstock.backends.mlflow_flavors import (
    Booster,
    Flavor,
    Pyfunc,
    Sklearn,
    XgbModel,
    check_pickles,
    module,
)
from penstock.backends.mlflow_model_file import PYFUNC, ModelFile
from penstock.backends.mlflow_schema import Schema
from penstock.backends.mlflow_torch import is_torchscript, load_pytorch, torch_folder
from penstock.errors import LoadFailed, PenstockError

ENVIRONMENT: Final = MappingProxyType(
    {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_CONFIGURE_LOGGING": "false",  # its lines go to our log
    }
)
"""What MLflow finds set in a worker."""
OFFLINE: Final = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Set unless the server was started with them: what a model needs lies in its folder."""


def holds_bytecode(file: ModelFile, flavor: str) -> bool:
    """Whether it holds pickled functions, which are for one minor version of Python."""
    if flavor == "sklearn":
        return file.flavors[flavor].get("serialization_format") == "cloudpickle"
    if flavor == "pytorch":
        return (torch_folder(file) / "model.pth").is_file() and not is_torchscript(
            torch_folder(file) / "model.pth"
        )
    conf = file.flavors.get(PYFUNC, {})
    return (
        flavor == PYFUNC
        and conf.get("loader_module") == "mlflow.pyfunc.model"
        and (str(conf.get("python_model") or "").endswith(".pkl"))
    )


def load_flavor(file: ModelFile, flavor: str, schema: Schema, threads: int) -> Flavor:
    """Load it. Raises LoadFailed that says what is wrong."""
    # folders of models may be read-only, and others count their files
    sys.dont_write_bytecode = True
    os.environ.update(ENVIRONMENT)
    _add_code(file, flavor)
    try:
        return _LOADERS[flavor](file, schema, threads)
    except PenstockError:
        raise
    except Exception as error:
        raise LoadFailed(
            f"{file.path}: the {flavor} flavour can't be loaded: {one_line(error)}"
        ) from error


def _load_sklearn(file: ModelFile, schema: Schema, threads: int) -> Flavor:
    _check_one_input(file, "sklearn", schema)
    conf = file.flavors["sklearn"]
    path = file.inside("sklearn", "pickled_model")
    form = conf.get("serialization_format") or "pickle"
    module("sklearn", "scikit-learn")
    if form == "skops":
        estimator = module("skops.io", "skops").load(path, trusted=conf.get("skops_trusted_types"))
    elif form in ("pickle", "cloudpickle"):
        check_pickles(path)
        with path.open("rb") as stream:
            estimator = module(form, form).load(stream)
    else:
        raise LoadFailed(
            f"{file.path}: flavors.sklearn.serialization_format is {form!r}, expected skops, pickle or cloudpickle"
        )
    method = file.flavors.get(PYFUNC, {}).get("predict_fn") or "predict"
    if not hasattr(estimator, method):
        raise LoadFailed(f"{path}: {type(estimator).__name__} has no method {method}")
    _bound_jobs(estimator, threads)
    return Sklearn(estimator, method)


def _bound_jobs(estimator: Any, threads: int) -> None:
    """Have it use its share of the cores, also where it was trained with all of them."""
    if not hasattr(estimator, "get_params"):
        return
    jobs = {
        name: threads
        for name, value in estimator.get_params().items()
        if name.rpartition("__")[2] == "n_jobs" and value is not None
    }
    if jobs:
        estimator.set_params(**jobs)


def _load_xgboost(file: ModelFile, schema: Schema, threads: int) -> Flavor:
    _check_one_input(file, "xgboost", schema)
    path = file.inside("xgboost", "data")
    xgboost = module("xgboost", "xgboost")
    # MLflow wrote no class before 1.22
    name = file.text("xgboost", "model_class", "xgboost.core.Booster")
    place, _, cls = name.rpartition(".")
    if place.partition(".")[0] != "xgboost":
        raise LoadFailed(
            f"{file.path}: flavors.xgboost.model_class is {name!r}, expected a class of xgboost's"
        )
    model = getattr(import_module(place), cls)()
    model.load_model(path)
    if isinstance(model, xgboost.Booster):
        model.set_param({"nthread": threads})
        return Booster(model, lambda data: xgboost.DMatrix(data, nthread=threads))
    model.set_params(n_jobs=threads)
    return XgbModel(model, "predict")


def _load_pyfunc(file: ModelFile, schema: Schema, threads: int) -> Flavor:
    conf = file.flavors[PYFUNC]
    file.text(PYFUNC, "loader_module")
    # of model_code_path MLflow takes the name alone
    for key in ("data", "model_path", "python_model"):
        if isinstance(conf.get(key), str):
            file.inside(PYFUNC, key)
    artifacts = conf.get("artifacts")
    for name, artifact in (artifacts if isinstance(artifacts, dict) else {}).items():
        if isinstance(artifact, dict) and isinstance(artifact.get("path"), str):
            file.file(artifact["path"], f"flavors.{PYFUNC}.artifacts.{name}.path")
    for variable in OFFLINE:
        os.environ.setdefault(variable, "1")
    mlflow = module("mlflow.pyfunc", "mlflow")
    # what differs from the requirements was told before
    return Pyfunc(mlflow.load_model(str(file.folder), suppress_warnings=True))


_LOADERS: Final[Mapping[str, Callable[[ModelFile, Schema, int], Flavor]]] = MappingProxyType(
    {
        "sklearn": _load_sklearn,
        "xgboost": _load_xgboost,
        "pytorch": load_pytorch,
        # when it is asked for by name, or isn't onnxruntime's for another reason
        "onnx": _load_pyfunc,
        PYFUNC: _load_pyfunc,
    }
)


def _add_code(file: ModelFile, flavor: str) -> None:
    """The model's own modules come first, as with MLflow."""
    if file.flavors.get(flavor, {}).get("code"):
        folder = str(file.inside(flavor, "code").absolute())
        if folder not in sys.path:
            sys.path.insert(0, folder)


def _check_one_input(file: ModelFile, flavor: str, schema: Schema) -> None:
    if not schema.columns and len(schema.fields) > 1:
        names = ", ".join(field.name for field in schema.fields)
        raise LoadFailed(
            f"{file.path}: the {flavor} flavour takes a table or one tensor, the inputs are tensors"
            f" {names}; give it a signature of columns"
        )
