"""Finds the backend that a model's configuration, or else its files, ask for, and imports it only then."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

from penstock.backends.base import Backend, LoadedModel, LoadSpec
from penstock.backends.images import with_images
from penstock.backends.mlflow_model_file import FILENAME as MLMODEL
from penstock.backends.mlflow_model_file import has_model_file, read_model_file
from penstock.backends.reshape import with_reshapes
from penstock.backends.sequences import with_sequences
from penstock.backends.uneven_outputs import with_uneven_outputs
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "onnxruntime": "penstock.backends.onnxruntime_backend",
        "python": "penstock.backends.python_backend",
        "mlflow": "penstock.backends.mlflow_backend",
        "openvino": "penstock.backends.openvino_backend",
        "torch": "penstock.backends.torch_backend",
        "tensorrt": "penstock.backends.tensorrt_backend",
    }
)
"""Backend → the module whose `load` it is."""

MODEL_FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "onnxruntime": "model.onnx",
        "python": "model.py",
        "mlflow": MLMODEL,
        "openvino": "model.xml",
        "torch": "model.pt",
        "tensorrt": "model.plan",
    }
)
"""Backend → what its model file is called when the configuration doesn't say."""

OTHER_MODEL_FILES: Final[Mapping[str, str]] = MappingProxyType({"model.pt2": "torch"})
"""Further usual names → their backend."""

IN_ITS_PLACE: Final[Mapping[str, str]] = MappingProxyType({"tensorrt": "model.onnx"})
"""Backend → the file that may lie beside its model file, or alone, and is run where that can't be."""

WITHOUT_IT: Final[Mapping[str, str]] = MappingProxyType({"openvino": "model.onnx"})
"""Backend → the file that it runs where its own is not there, and never reads beside it."""

PLATFORMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "onnxruntime_onnx": "onnxruntime",
        "python": "python",
        "pytorch_libtorch": "torch",
        "tensorrt_plan": "tensorrt",
    }
)
ALIASES: Final[Mapping[str, str]] = MappingProxyType({"pytorch": "torch"})
"""Triton's name of a backend → ours."""


def backend_for(config: ConfigDict, version_dir: Path) -> str:
    """The name of the backend that runs a model.

    `backend` decides, then `platform`, then the model file in `version_dir`: that of MLflow before all others. Raises
    LoadFailed when they name no backend that there is, or leave it open, or when MLflow's file can't be read.
    """
    backend = config.get("backend") or ""
    platform = config.get("platform") or ""
    if backend:
        return _known(backend, f"backend {backend!r}")
    if platform:
        return _known(PLATFORMS.get(platform, platform), f"platform {platform!r}")
    filename = config.get("default_model_filename") or ""
    if filename in ("", MLMODEL) and has_model_file(version_dir):
        # what else lies there is MLflow's, also a model.onnx or a model.py
        flavor = read_model_file(version_dir).flavor(config)
        return "onnxruntime" if flavor == "onnx" else "mlflow"
    return _by_file(filename, version_dir)


def load(spec: LoadSpec) -> LoadedModel:
    """Load a model with the backend it asks for. Raises LoadFailed, or whatever the model's own code raised."""
    module = import_module(MODULES[backend_for(spec.config, spec.version_dir)])
    loaded = with_sequences(spec, lambda spec: with_reshapes(cast(Backend, module.load)(spec)))
    return with_uneven_outputs(with_images(spec, loaded))


def _known(backend: str, asked_for: str) -> str:
    backend = ALIASES.get(backend, backend)
    if backend not in MODULES:
        known = ", ".join(MODULES)
        raise LoadFailed(f"the configuration asks for {asked_for}; known backends: {known}")
    return backend


def _by_file(filename: str, version_dir: Path) -> str:
    usual = _backends_by_file()
    if filename:
        there = [(name, b) for name, b in usual if Path(name).suffix == Path(filename).suffix]
    else:
        there = [(name, b) for name, b in usual if (version_dir / name).exists()]
    found = {backend for _, backend in there}
    if found == {"onnxruntime", "tensorrt"}:
        # the plan was built of the other one, which takes its place where TensorRT is not
        return "tensorrt"
    if len(found) == 1:
        return found.pop()
    if found:
        raise LoadFailed(
            f"{version_dir} holds {' and '.join(map(_shown, there))}: say which in `backend`"
        )
    expected = " or ".join(map(_shown, usual))
    where = f"default_model_filename {filename!r} doesn't tell" if filename else "there is none"
    raise LoadFailed(
        f"no backend configured, and no model file to tell it by: expected {expected}"
        f" in {version_dir}, {where}"
    )


def _shown(file: tuple[str, str]) -> str:
    name, backend = file
    return f"{name} ({backend})"


def _backends_by_file() -> list[tuple[str, str]]:
    return [(name, backend) for backend, name in MODEL_FILES.items()] + [*OTHER_MODEL_FILES.items()]
