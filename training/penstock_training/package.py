"""An ONNX file as a model of MLflow's: a folder with `MLmodel`, which servers are given as it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import yaml

from penstock_training.mlflow_link import quiet
from penstock_training.recipe import Recipe

REQUIREMENTS: Final = ("numpy", "onnx>=1.17", "onnxruntime>=1.20")
"""What a file of the operators that the export uses needs, to be served by whom it may."""


def make_package(onnx_file: Path, recipe: Recipe, folder: Path, model_id: str, run_id: str) -> None:
    """Make the folder, which appears as a whole. Raises OSError, and what MLflow raises."""
    with quiet():
        from mlflow.models import Model
        from mlflow.onnx import save_model

        draft = folder.with_name(f".{folder.name}")
        shutil.rmtree(draft, ignore_errors=True)
        save_model(
            onnx.load(onnx_file),
            str(draft),
            mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
            signature=_signature(onnx_file),
            pip_requirements=list(REQUIREMENTS),
            onnx_execution_providers=["CPUExecutionProvider"],
            metadata=_metadata(recipe),
            save_as_external_data=False,
        )
    # MLflow writes the graph anew: it is to be the file that was checked
    shutil.copyfile(onnx_file, draft / "model.onnx")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(draft, folder)


def _signature(onnx_file: Path) -> Any:
    """What goes in and comes out, with -1 for the batch and whatever else may vary."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    graph = onnx.load(onnx_file, load_external_data=False).graph
    inputs, outputs = (
        Schema([TensorSpec(_dtype(value), _shape(value), value.name) for value in values])
        for values in (graph.input, graph.output)
    )
    return ModelSignature(inputs, outputs)


def _dtype(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(
        -1 if dim.dim_param or not dim.HasField("dim_value") else dim.dim_value for dim in dims
    )


def _metadata(recipe: Recipe) -> Mapping[str, Any] | None:
    return {"class_names": list(recipe.class_names)} if recipe.class_names else None


def model_id_of(package: Path) -> str:
    """Of which of MLflow's models it is the files."""
    return str(yaml.safe_load((package / "MLmodel").read_text()).get("model_id") or "")
