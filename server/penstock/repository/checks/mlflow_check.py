"""What differs between an MLflow model's requirements and this environment, and does not keep it from being loaded."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from penstock.backends.mlflow_model_file import has_model_file, read_model_file
from penstock.backends.mlflow_requirements import compare
from penstock.model_config import ConfigDict
from penstock.repository.checks.findings import Finding, warning


def requirement_warnings(version_dir: Path, config: ConfigDict) -> Iterator[Finding]:
    """Of a version that MLflow has saved. What is missing is told when it is loaded. Raises LoadFailed."""
    # it comes with the extra `mlflow`, whose absence loading tells
    if not has_model_file(version_dir) or find_spec("packaging") is None:
        return
    file = read_model_file(version_dir)
    found = compare(file, file.flavor(config))
    place = str(version_dir)
    for each in found.differing:
        yield warning(f"the model needs {each}", place)
    for each in found.unreadable:
        yield warning(each, place)
    if found.python:
        here = platform.python_version()
        yield warning(f"the model is from Python {found.python}, this is {here}", place)
