"""Models that MLflow's own `save_model` writes, in the place of a version's folder, beside the models themselves."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from penstock.types import Array

APPS = Path(__file__).parent.parent / "apps"

RNG = np.random.default_rng(7)
X: Array = RNG.random((60, 3)).astype(np.float32)
LABELS: Array = (X.sum(axis=1) > 1.5).astype(np.int64)


@cache
def libraries() -> Any:
    """MLflow and its flavours, imported when they are first needed: that takes seconds."""
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.onnx
        import mlflow.pyfunc
        import mlflow.pytorch
        import mlflow.sklearn
        import mlflow.xgboost
        import pandas
        import sklearn.compose
        import sklearn.ensemble
        import sklearn.linear_model
        import sklearn.pipeline
        import sklearn.preprocessing
        import torch
        import xgboost
    return SimpleNamespace(
        mlflow=mlflow, pandas=pandas, sklearn=sklearn, torch=torch, xgboost=xgboost
    )


def save(flavor: str, model_dir: Path, *model: Any, **options: Any) -> Path:
    """`mlflow.FLAVOR.save_model(…)` as version 1, without a search for what it needs, which takes seconds."""
    path = model_dir / "1"
    options.setdefault("pip_requirements", [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(libraries().mlflow, flavor).save_model(*model, path=str(path), **options)
    return path


def infer_signature(
    inputs: Any, outputs: Any = None, params: Mapping[str, Any] | None = None
) -> Any:
    """MLflow's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return libraries().mlflow.models.infer_signature(inputs, outputs, params)


def classifier() -> Any:
    """Logistic regression on three numbers."""
    return libraries().sklearn.linear_model.LogisticRegression().fit(X, LABELS)


def write_sklearn(model_dir: Path, model: Any = None, **options: Any) -> Any:
    """A classifier of one tensor; returns it."""
    model = classifier() if model is None else model
    options.setdefault("signature", infer_signature(X, model.predict(X)))
    options.setdefault("serialization_format", "skops")
    save("sklearn", model_dir, model, **options)
    return model


def people() -> Any:
    """A table of columns of several types."""
    size = len(X)
    return libraries().pandas.DataFrame(
        {
            "city": np.array(["Köln", "Oslo", "Rom"], object)[np.arange(size) % 3],
            "age": np.arange(size, dtype=np.int32) % 90,
            "income": X[:, 0].astype(np.float64) * 1e5,
            "member": LABELS.astype(bool),
        }
    )


def write_table(model_dir: Path) -> Any:
    """A pipeline of scikit-learn's on a table with texts."""
    learn, table = libraries().sklearn, people()
    columns = learn.compose.ColumnTransformer(
        [("city", learn.preprocessing.OneHotEncoder(), ["city"])], remainder="passthrough"
    )
    classes = np.array(["low", "high"], object)[LABELS]
    model = learn.pipeline.make_pipeline(
        columns,
        learn.preprocessing.StandardScaler(),
        learn.linear_model.LogisticRegression(),
    ).fit(table, classes)
    predicted = libraries().pandas.DataFrame({"class": model.predict(table)})
    save(
        "sklearn",
        model_dir,
        model,
        signature=infer_signature(table, predicted),
        serialization_format="skops",
    )
    return model


def write_xgboost(model_dir: Path) -> Any:
    """XGBoost's classifier."""
    model = libraries().xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(X, LABELS)
    save("xgboost", model_dir, model, signature=infer_signature(X, model.predict(X)))
    return model


def write_booster(model_dir: Path) -> Any:
    """XGBoost's own class, of a table."""
    xgboost = libraries().xgboost
    table = libraries().pandas.DataFrame(X, columns=["a", "b", "c"])
    model = xgboost.train(
        {"objective": "reg:squarederror", "nthread": 1}, xgboost.DMatrix(table, LABELS), 5
    )
    predicted = model.predict(xgboost.DMatrix(table))
    params = {"output_margin": False}
    save("xgboost", model_dir, model, signature=infer_signature(table, predicted, params))
    return model


def network() -> Any:
    """A small one of PyTorch's."""
    torch = libraries().torch
    torch.manual_seed(3)
    layers = torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
    return torch.nn.Sequential(*layers).eval()


def traced(module: Any) -> Any:
    """As TorchScript."""
    torch = libraries().torch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, torch.from_numpy(X[:2]))


def outputs_of(module: Any, array: Array = X) -> Array:
    """What a module gives for an array."""
    with libraries().torch.no_grad():
        outputs: Array = module(libraries().torch.from_numpy(array)).numpy()
    return outputs


def write_pytorch(model_dir: Path, module: Any = None, form: str = "pt2", rows: int = 4) -> Any:
    """A module, in one of MLflow's formats; `rows` of the example that pt2 is exported with."""
    given = network() if module is None else module
    example = {"input_example": X[:rows]} if form == "pt2" else {}
    save(
        "pytorch",
        model_dir,
        given,
        signature=infer_signature(X, outputs_of(given)),
        serialization_format=form,
        **example,
    )
    return given


def write_onnx_network(model_dir: Path) -> None:
    """An ONNX model that gives x back with the other sign as y."""
    from onnx import load

    from model_files import write_onnx

    free: tuple[str, Sequence[int | str | None]] = ("FP32", ["n", 3])
    path = write_onnx(
        model_dir.with_suffix(".parts"), [("Neg", ["x"], ["y"])], {"x": free}, {"y": free}
    )
    model = load(str(path))
    shutil.rmtree(model_dir.with_suffix(".parts"))
    save("onnx", model_dir, model, signature=infer_signature({"x": X}, {"y": -X}))


def write_shop(model_dir: Path) -> None:
    """`tests/apps/mlflow_shop.py`: a table with texts, times, an optional column, and parameters."""
    libraries()
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        inputs=Schema(
            [
                ColSpec("string", "item"),
                ColSpec("double", "price"),
                ColSpec("datetime", "ordered"),
                ColSpec("double", "discount", required=False),
            ]
        ),
        outputs=Schema(
            [ColSpec("string", "label"), ColSpec("double", "total"), ColSpec("long", "orders")]
        ),
        params=ParamSchema(
            [ParamSpec("factor", "double", 1.0), ParamSpec("currency", "string", "EUR")]
        ),
    )
    save("pyfunc", model_dir, python_model=str(APPS / "mlflow_shop.py"), signature=signature)


def write_mlmodel(model_dir: Path, flavors: Mapping[str, Any], **content: Any) -> Path:
    """An MLmodel file by hand, without a model."""
    import yaml

    path = model_dir / "1" / "MLmodel"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"flavors": dict(flavors), **content}))
    return path


def columns(*given: tuple[str | None, str], **more: Any) -> str:
    """A signature's columns of (name, type), as MLmodel files have them."""
    fields = [{"type": kind, **({} if name is None else {"name": name})} for name, kind in given]
    return json.dumps([{**field, **more} for field in fields])


def tensors(*given: tuple[str | None, str, Sequence[int]]) -> str:
    """A signature's tensors of (name, dtype, shape)."""
    return json.dumps(
        [
            {
                "type": "tensor",
                "tensor-spec": {"dtype": dtype, "shape": list(shape)},
                **({} if name is None else {"name": name}),
            }
            for name, dtype, shape in given
        ]
    )
