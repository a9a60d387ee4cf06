"""Runs Python models: Triton's `TritonPythonModel`, or a class decorated with `penstock.model`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from penstock.backends import decorated, triton_python, triton_python_backend_utils
from penstock.backends.base import LoadedModel, LoadSpec, OtherModels
from penstock.backends.model_module import import_model
from penstock.errors import LoadFailed
from penstock.model_api import MODEL_ATTRIBUTE

DEFAULT_FILENAME: Final = "model.py"
TRITON_CLASS: Final = "TritonPythonModel"
TRITON_MODULE: Final = "triton_python_backend_utils"


def load(spec: LoadSpec) -> LoadedModel:
    """Load `model.py`, or `default_model_filename`. Raises LoadFailed with what is wrong and what was expected."""
    path = spec.version_dir / (spec.config.get("default_model_filename") or DEFAULT_FILENAME)
    if not path.is_file():
        raise LoadFailed(f"there is no model file: expected {path}")
    utils = sys.modules[TRITON_MODULE] = triton_module(spec.version_dir, spec.others)
    module = import_model(spec, path)
    triton_class = getattr(module, TRITON_CLASS, None)
    if isinstance(triton_class, type):
        return triton_python.load(spec, triton_class, utils.InferenceRequest)
    return decorated.load(spec, _decorated_class(module, path))


def triton_module(version_dir: Path, others: OtherModels | None = None) -> ModuleType:
    """A copy of our `triton_python_backend_utils`, which also reaches other models, and tells where the model's files
    are."""
    module = ModuleType(TRITON_MODULE, triton_python_backend_utils.__doc__)
    for name in triton_python_backend_utils.__all__:
        setattr(module, name, getattr(triton_python_backend_utils, name))
    for name, bound in triton_python_backend_utils.bound_to(others).items():
        setattr(module, name, bound)

    def get_model_dir() -> str:
        """The folder of the version's files."""
        return str(version_dir)

    module.get_model_dir = get_model_dir  # type: ignore[attr-defined]
    return module


def _decorated_class(module: ModuleType, path: Path) -> type:
    classes = {
        value
        for value in vars(module).values()
        if isinstance(value, type) and MODEL_ATTRIBUTE in vars(value)
    }
    if len(classes) != 1:
        names = ", ".join(sorted(cls.__name__ for cls in classes)) or "neither"
        raise LoadFailed(
            f"{path}: expected a class {TRITON_CLASS}, or exactly one class decorated with"
            f" penstock.model; found {names}"
        )
    return classes.pop()
