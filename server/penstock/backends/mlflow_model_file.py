"""Reads the `MLmodel` file of a model that MLflow has saved: which flavours there are, and the signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final

import yaml

from penstock.backends.mlflow_schema import INPUT_PREFIX, OUTPUT_PREFIX, Schema, parse_schema
from penstock.backends.parameters import string_parameters
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

FILENAME: Final = "MLmodel"
MAX_BYTES: Final = 16 << 20

PYFUNC: Final = "python_function"
NATIVE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mlflow.onnx": "onnx",
        "mlflow.pytorch": "pytorch",
        "mlflow.sklearn": "sklearn",
        "mlflow.xgboost": "xgboost",
    }
)
"""What loads a model for MLflow's `python_function` → the flavour that is loaded without MLflow instead."""

FLAVOR: Final = "mlflow_flavor"
"""The configuration's parameter that chooses among a model's flavours."""

_NO_YAML: Final = (yaml.YAMLError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """An `MLmodel` file."""

    path: Path
    flavors: Mapping[str, Mapping[str, Any]]
    signature: Mapping[str, Any] | None
    from_type_hints: bool
    """The signature follows from the type hints of a Python function, which checks its data itself."""
    mlflow_version: str
    """Empty: before 1.18."""

    @property
    def folder(self) -> Path:
        """All paths in the file are below it."""
        return self.path.parent

    def flavor(self, config: ConfigDict) -> str:
        """The flavour to serve. Raises LoadFailed where there is none that can be."""
        asked = string_parameters(config).get(FLAVOR)
        if asked is not None:
            return self._asked(asked)
        loader = self.flavors.get(PYFUNC, {}).get("loader_module")
        native = NATIVE.get(loader) if isinstance(loader, str) else None
        if native is not None and native in self.flavors:
            return native
        if PYFUNC in self.flavors:
            return PYFUNC
        found = [flavor for flavor in NATIVE.values() if flavor in self.flavors]
        if not found:
            has = ", ".join(self.flavors) or "none"
            raise LoadFailed(
                f"{self.path} has no flavour that can be served: it has {has}; expected one of {_served()}"
            )
        return found[0]

    def _asked(self, asked: str) -> str:
        served = [name for name in (*NATIVE.values(), PYFUNC) if name in self.flavors]
        if asked not in served:
            raise LoadFailed(
                f"parameter {FLAVOR!r} is {asked!r}, which the model has not or is not served;"
                f" expected one of {', '.join(served) or 'none: it has no flavour that can be served'}"
            )
        return asked

    def text(self, flavor: str, key: str, default: str | None = None) -> str:
        """A text of a flavour's. Raises LoadFailed where it is not there or no text."""
        value = self.flavors[flavor].get(key, default)
        if not isinstance(value, str) or not value:
            raise LoadFailed(f"{self.path}: flavors.{flavor}.{key} is {value!r}, expected a text")
        return value

    def inside(self, flavor: str, key: str, default: str | None = None) -> Path:
        """The file or folder that a flavour names. Raises LoadFailed where it is not there, or outside of the model's
        folder."""
        return self.file(self.text(flavor, key, default), f"flavors.{flavor}.{key}")

    def file(self, name: str, key: str) -> Path:
        """As `inside` does, of a path that `key` has."""
        # what is checked before a load are the files of the version's folder
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise LoadFailed(
                f"{self.path}: {key} is {name!r}, expected a path inside of the model's folder"
            )
        if not (self.folder / name).exists():
            raise LoadFailed(f"{self.path}: {key} is {name!r}, which is not there")
        return self.folder / name

    def schema(self, key: str) -> Schema | None:
        """`inputs` or `outputs` of the signature; None: it says nothing of them. Raises LoadFailed."""
        given = None if self.signature is None else self.signature.get(key)
        if given is None:
            return None
        prefix = INPUT_PREFIX if key == "inputs" else OUTPUT_PREFIX
        return parse_schema(given, f"{self.path}: signature.{key}", prefix)


def has_model_file(version_dir: Path) -> bool:
    """Whether MLflow has saved what lies there."""
    return (version_dir / FILENAME).is_file()


def read_model_file(version_dir: Path) -> ModelFile:
    """Read it. Raises LoadFailed that says what is wrong, and in which line where that is known."""
    path = version_dir / FILENAME
    content = _content(path)
    flavors = content.get("flavors")
    if not isinstance(flavors, dict) or not flavors:
        raise LoadFailed(f"{path}: flavors is {flavors!r}, expected a mapping of flavours")
    for name, flavor in flavors.items():
        if not isinstance(name, str) or not isinstance(flavor, dict):
            raise LoadFailed(f"{path}: flavors.{name} is {flavor!r}, expected a mapping")
    signature = content.get("signature")
    if signature is not None and not isinstance(signature, dict):
        raise LoadFailed(f"{path}: signature is {signature!r}, expected a mapping")
    return ModelFile(
        path,
        flavors,
        signature,
        content.get("is_signature_from_type_hint") is True,
        str(content.get("mlflow_version") or ""),
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise LoadFailed(f"{path} can't be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise LoadFailed(f"{path} is over {MAX_BYTES} bytes, expected an MLmodel file")
    try:
        content = _parsed(data)
    except _NO_YAML as error:
        raise LoadFailed(f"{path} is no YAML: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise LoadFailed(f"{path} holds {type(content).__name__}, expected a mapping with flavors")
    return content


def _parsed(data: bytes) -> Any:
    return yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def trusted_types(data: bytes) -> list[str]:
    """The types that an MLmodel file trusts beyond those that skops does. None in what can't be read, or loaded."""
    try:
        content = _parsed(data)
        found = content["flavors"]["sklearn"].get("skops_trusted_types")
    except (*_NO_YAML, LookupError, TypeError, AttributeError):
        return []
    return [str(each) for each in found] if isinstance(found, list) else [str(found)] * bool(found)


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}: {getattr(error, 'problem', error)}"


def _served() -> str:
    return ", ".join((*NATIVE.values(), PYFUNC))
