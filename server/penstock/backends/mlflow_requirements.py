"""Compares what an MLflow model says that it needs with what is installed. Installs nothing, and asks no network.

A package that is not there keeps the model from being loaded. One of another version does not, since MLflow pins each
to the very version that it was saved with; it is told in the log. Nor does another Python, but for models that hold
pickled functions: their bytecode is that of one minor version, and another one may crash on it.

`mlflow_requirements`   refuse (default), exact: other versions are refused too, warn: nothing is
"""

from __future__ import annotations

import contextlib
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from penstock.backends.mlflow_model_file import PYFUNC, ModelFile
from penstock.backends.parameters import string_parameters
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

log = logging.getLogger(__name__)

PARAMETER: Final = "mlflow_requirements"
POLICIES: Final = ("refuse", "exact", "warn")
REQUIREMENTS: Final = "requirements.txt"
CONDA: Final = "conda.yaml"

OWN: Final = ("mlflow", "mlflow-skinny")
"""All models say that they need it; those of other flavours than python_function don't."""

SAME: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "mlflow": ("mlflow-skinny",),
        "onnxruntime": ("onnxruntime-gpu",),
        "opencv-python": ("opencv-python-headless",),
        "tensorflow": ("tensorflow-cpu",),
        "xgboost": ("xgboost-cpu",),
    }
)
"""Package → others that are the same to a model."""


@dataclass(slots=True)
class Findings:
    """What does not fit."""

    missing: list[str] = field(default_factory=list)
    """`name==1.2`: it is not installed."""
    differing: list[str] = field(default_factory=list)
    """`name==1.2 (1.3 is installed)`."""
    unreadable: list[str] = field(default_factory=list)
    """Lines that are no requirements, and where."""
    python: str = ""
    """The model's Python, where the minor version is another one."""


def check_requirements(file: ModelFile, config: ConfigDict, flavor: str, *, bytecode: bool) -> None:
    """Raises LoadFailed that names what is missing; what else differs goes to the log.

    `bytecode`: the model holds pickled functions.
    """
    policy = string_parameters(config).get(PARAMETER, POLICIES[0])
    if policy not in POLICIES:
        raise LoadFailed(
            f"parameter {PARAMETER!r} is {policy!r}, expected one of {', '.join(POLICIES)}"
        )
    found = compare(file, flavor)
    refused = []
    if found.missing:
        refused.append(f"needs {', '.join(found.missing)}: not installed here")
    if policy == "exact" and found.differing:
        refused.append(f"needs {', '.join(found.differing)}")
    if found.python and (bytecode or policy == "exact"):
        why = ", whose pickled functions no other can run" if bytecode else ""
        refused.append(f"is from Python {found.python}{why} (this is {platform.python_version()})")
    if refused and policy != "warn":
        raise LoadFailed(
            f"the model {'; it '.join(refused)}. Penstock installs nothing: install what is missing in the server's"
            f' environment, or try without by parameter {PARAMETER} "warn"'
        )
    _warn(file.folder, found, refused)


def compare(file: ModelFile, flavor: str) -> Findings:
    """Everything that the model names against this environment."""
    if find_spec("packaging") is None:
        raise LoadFailed("models of MLflow need the extra mlflow: pip install 'penstock[mlflow]'")
    found = Findings()
    for where, text in _lines(file.folder, found):
        _compare(text, where, flavor, found)
    wanted = str(file.flavors.get(PYFUNC, {}).get("python_version") or "")
    if wanted and _minor(wanted) != _minor(platform.python_version()):
        found.python = wanted
    return found


def _warn(folder: Path, found: Findings, refused: Sequence[str]) -> None:
    for each in refused:
        log.warning("the model in %s %s; loaded all the same, as configured", folder, each)
    if found.differing and not any("is installed" in each for each in refused):
        log.warning("the model in %s needs %s", folder, ", ".join(found.differing))
    if found.python and not any(found.python in each for each in refused):
        here = platform.python_version()
        log.warning("the model in %s is from Python %s, this is %s", folder, found.python, here)
    for each in found.unreadable:
        log.warning("the model in %s: %s", folder, each)


def _compare(text: str, where: str, flavor: str, found: Findings) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        found.unreadable.append(f"{where}: {text[:100]!r} is no requirement that can be checked")
        return
    if requirement.marker is not None and not requirement.marker.evaluate():
        return
    if requirement.name in OWN and flavor != PYFUNC:
        return
    shown = f"{requirement.name}{requirement.specifier}"
    version = installed(requirement.name)
    if version is None:
        found.missing.append(shown)
    elif not requirement.specifier.contains(version, prereleases=True):
        found.differing.append(f"{shown} ({version} is installed)")


def installed(name: str) -> str | None:
    """The version of a package, or of another one that is imported by its name: xgboost-cpu is xgboost too."""
    for each in (name, *SAME.get(name, ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(each)
    module = name.replace("-", "_")
    # who has put the module there takes a second to find out
    if not module.isidentifier() or find_spec(module) is None:
        return None
    owners = metadata.packages_distributions().get(module)
    return metadata.version(owners[0]) if owners else None


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _lines(folder: Path, found: Findings) -> Iterator[tuple[str, str]]:
    """Place and text of each requirement: of requirements.txt, or else of conda.yaml."""
    if (folder / REQUIREMENTS).is_file():
        yield from _of_file(folder, REQUIREMENTS, found, set())
    elif (folder / CONDA).is_file():
        yield from _of_conda(folder, found)


def _of_file(
    folder: Path, name: str, found: Findings, seen: set[Path]
) -> Iterator[tuple[str, str]]:
    path = (folder / name).resolve()
    if path in seen or not path.is_relative_to(folder.resolve()) or not path.is_file():
        found.unreadable.append(f"{name!r} can't be followed")
        return
    seen.add(path)
    number = 0
    text = path.read_text(errors="replace").replace("\\\n", " ")
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition(" #")[0].strip()
        if line.startswith(("-r ", "--requirement ")):
            yield from _of_file(folder, line.split(None, 1)[1], found, seen)
        # constraints bound what is needed by something else; other options are for installing
        elif line and not line.startswith(("#", "-")):
            yield f"{name}:{number}", line.partition(" --hash")[0].strip()


def _of_conda(folder: Path, found: Findings) -> Iterator[tuple[str, str]]:
    try:
        content: Any = yaml.safe_load((folder / CONDA).read_text(errors="replace"))
    except yaml.YAMLError as error:
        raise LoadFailed(f"{folder / CONDA} is no YAML: {' '.join(str(error).split())}") from error
    dependencies = content.get("dependencies") if isinstance(content, dict) else None
    # conda's own packages are no Python packages, or have other names
    for each in dependencies if isinstance(dependencies, list) else ():
        pip = each.get("pip") if isinstance(each, dict) else None
        for text in pip if isinstance(pip, list) else ():
            line = str(text).strip()
            if line.startswith("-r "):
                yield from _of_file(folder, line.split(None, 1)[1], found, set())
            elif line and not line.startswith(("#", "-")):
                yield CONDA, line
