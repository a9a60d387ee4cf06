"""What an MLflow model of the onnx flavour says of its file, and of ONNX Runtime's options in our words."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from penstock.backends.base import LoadSpec
from penstock.backends.mlflow_model_file import ModelFile, has_model_file, read_model_file
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

FLAVOR: Final = "onnx"
OPTIONS: Final = "onnx_session_options"
THREADS: Final = {
    "intra_op_num_threads": "intra_op_thread_count",
    "inter_op_num_threads": "inter_op_thread_count",
}
MODES: Final = {"SEQUENTIAL": "0", "PARALLEL": "1"}
LEVELS: Final = {0: 2, 1: -1, 2: 1, 99: 0}
"""ONNX Runtime's level of graph optimization → Triton's."""

log = logging.getLogger(__name__)


def onnx_file(spec: LoadSpec) -> Path | None:
    """The ONNX file; None: the version is no MLflow model of this flavour. Raises LoadFailed."""
    file = _file(spec)
    return None if file is None else file.inside(FLAVOR, "data")


def with_onnx_options(spec: LoadSpec) -> LoadSpec:
    """With the options that the model was saved with, where the configuration gives none. Raises LoadFailed."""
    file = _file(spec)
    options = None if file is None else file.flavors[FLAVOR].get(OPTIONS)
    if not options or file is None:
        return spec
    where = f"{file.path}: flavors.{FLAVOR}.{OPTIONS}"
    if not isinstance(options, dict):
        raise LoadFailed(f"{where} is {options!r}, expected a mapping")
    given = {key: {"string_value": value} for key, value in _parameters(options, where)}
    config: ConfigDict = {
        **spec.config,
        "parameters": {**given, **(spec.config.get("parameters") or {})},
    }
    level = options.get("graph_optimization_level")
    if level is not None and not (config.get("optimization") or {}).get("graph"):
        config["optimization"] = {
            **(config.get("optimization") or {}),
            "graph": {"level": _one_of(LEVELS, level, f"{where}.graph_optimization_level")},
        }
    return replace(spec, config=config)


def _parameters(options: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for key, parameter in THREADS.items():
        if options.get(key):
            yield parameter, str(options[key])
    mode = options.get("execution_mode")
    if mode:
        yield "execution_mode", _one_of(MODES, str(mode).upper(), f"{where}.execution_mode")
    extra = options.get("extra_session_config") or {}
    if not isinstance(extra, dict):
        raise LoadFailed(f"{where}.extra_session_config is {extra!r}, expected a mapping")
    for key, value in extra.items():
        if str(key).startswith("session."):
            yield str(key), str(value)
        else:
            log.warning("%s.extra_session_config: %s is left out", where, key)


def _one_of(known: Mapping[Any, Any], given: object, where: str) -> Any:
    if not isinstance(given, (int, str)) or given not in known:
        raise LoadFailed(f"{where} is {given!r}, expected one of {', '.join(map(str, known))}")
    return known[given]


def _file(spec: LoadSpec) -> ModelFile | None:
    if spec.config.get("default_model_filename") or not has_model_file(spec.version_dir):
        return None
    file = read_model_file(spec.version_dir)
    return file if FLAVOR in file.flavors else None
