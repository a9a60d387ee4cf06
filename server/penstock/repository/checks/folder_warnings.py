"""What lies in a model's folder in vain, or is missing there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from penstock.backends.mlflow_model_file import FILENAME as MLMODEL
from penstock.backends.registry import IN_ITS_PLACE, MODEL_FILES, WITHOUT_IT
from penstock.backends.torch_files import FILENAMES as TORCH_FILES
from penstock.backends.torch_files import SOURCE, WEIGHTS
from penstock.model_config import ConfigDict
from penstock.repository.checks.config_warnings import label_count
from penstock.repository.checks.findings import Finding, error, warning
from penstock.repository.config_check import Problem
from penstock.repository.dependencies import needs_of
from penstock.repository.folders import MAX_VERSION
from penstock.repository.labels import read_labels
from penstock.workers import warmup_samples

CONFIG_FILES: Final = ("config.pbtxt", "config.yaml")
LIKE_A_CONFIG: Final = re.compile(
    r"config\.(pbtx|pbtext|prototxt|txt|yml|json|toml)|config|model\.(pbtxt|yaml)"
)
FOREIGN: Final = {
    "model.savedmodel": "TensorFlow",
    "model.graphdef": "TensorFlow",
}
"""Model files of backends that there are not."""


def folder_findings(
    folder: Path, config: ConfigDict, backend: str, served: Sequence[int]
) -> Iterator[Finding]:
    """Of a model whose configuration could be read; `backend` may be empty: not known."""
    # an ensemble's versions have nothing to hold
    yield from _versions(folder, () if needs_of(config) else served)
    yield from _model_files(folder, config, backend, served)
    yield from _misplaced(folder, config)
    yield from _unread(folder, "warmup", _warmup_files(config), "model_warmup")
    states = (config.get("sequence_batching") or {}).get("state", ())
    initial = {each.get("data_file") for state in states for each in state["initial_state"]}
    yield from _unread(folder, "initial_state", initial, "sequence_batching.state")
    yield from _labels(folder, config)


def label_mismatches(folder: Path, config: ConfigDict) -> Iterator[Problem]:
    """Label files that have not as many lines as their output has classes. Raises ConfigError as `read_labels`."""
    for index, output in enumerate(config["output"]):
        name, classes = output["label_filename"], label_count(output["dims"])
        if not name or not classes or not output["dims"]:
            continue
        found = len(read_labels(folder, name))
        if found != classes:
            text = f"is {name!r} with {found} labels; the output has {classes} classes"
            yield Problem(f"output[{index}].label_filename", text)


def _versions(folder: Path, served: Sequence[int]) -> Iterator[Finding]:
    for path in _inside(folder):
        if not path.is_dir():
            continue
        name = path.name
        if name.isascii() and name.isdigit() and name != str(int(name)):
            yield error(f"version folder {name!r} can't be served; expected {int(name)}", str(path))
        elif name.isascii() and name.isdigit() and int(name) > MAX_VERSION:
            text = f"version folder {name!r} can't be served; expected {MAX_VERSION} at most"
            yield error(text, str(path))
        elif name == "0":
            yield warning("version 0 is never served; expected a number above 0", str(path))
        elif re.fullmatch(r"[vV]\d+|version[-_ ]?\d+|latest", name):
            text = f"folder {name!r} is no version: a version's folder is called by its number, such as 1"
            yield warning(text, str(path))
    for version in served:
        if not any(_inside(folder / str(version))):
            yield error(f"version {version} is empty", str(folder / str(version)))


def _model_files(
    folder: Path, config: ConfigDict, backend: str, served: Sequence[int]
) -> Iterator[Finding]:
    wanted = config["default_model_filename"] or MODEL_FILES.get(backend, "")
    # a class with its weights is two files
    instead = {*TORCH_FILES, *WEIGHTS, SOURCE} if backend == "torch" else set()
    instead |= {name for name in (IN_ITS_PLACE.get(backend, ""),) if name and name != wanted}
    for version in served:
        version_dir = folder / str(version)
        names = {path.name for path in _inside(version_dir)}
        if MLMODEL in names and config["default_model_filename"] in ("", MLMODEL):
            # which files are read says MLflow's file, and whether they are there loading it
            continue
        if wanted and names and not names & {wanted, *instead, WITHOUT_IT.get(backend)}:
            found = ", ".join(sorted(names)[:5])
            yield error(
                f"version {version} has no model file {wanted!r}; it has {found}", str(version_dir)
            )
        # a Python model may read whatever it likes
        others = {*MODEL_FILES.values(), *FOREIGN} - {wanted, *instead}
        if backend == "python":
            others = set()
        for name in sorted(others & names if wanted in names else ()):
            yield warning(
                f"{name} is never read: the model file is {wanted}", str(version_dir / name)
            )


def _misplaced(folder: Path, config: ConfigDict) -> Iterator[Finding]:
    model_files = {config["default_model_filename"], *MODEL_FILES.values(), *FOREIGN}
    for path in _inside(folder):
        if path.name in model_files:
            text = f"{path.name} is never read here; expected in a version's folder, such as 1/"
            yield warning(text, str(path))
        elif path.is_file() and LIKE_A_CONFIG.fullmatch(path.name.lower()):
            text = f"{path.name} is never read; did you mean {' or '.join(CONFIG_FILES)}?"
            yield warning(text, str(path))


def _warmup_files(config: ConfigDict) -> set[str | None]:
    samples = warmup_samples.parse(config).model_warmup
    return {given.input_data_file for sample in samples for given in sample.inputs.values()}


def _unread(folder: Path, below: str, named: Iterable[str | None], key: str) -> Iterator[Finding]:
    names = {Path(name).parts[0] for name in named if name}
    for path in _inside(folder / below):
        if path.name not in names:
            yield warning(f"{path.name} is never read: {key} does not name it", str(path))


def _labels(folder: Path, config: ConfigDict) -> Iterator[Finding]:
    named = {output["label_filename"] for output in config["output"]}
    for path in _inside(folder):
        if path.is_file() and re.fullmatch(r".*labels?\.txt", path.name) and path.name not in named:
            yield warning(f"{path.name} is never read: no label_filename names it", str(path))


def _inside(folder: Path) -> list[Path]:
    """What a folder holds, but for what is hidden or made by Python; nothing where there is no folder."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__"))]
