"""Checks one model's folder as far as it can be without loading the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.backends.registry import backend_for
from penstock.config import Settings
from penstock.errors import ConfigError, PenstockError
from penstock.model_config import ConfigDict
from penstock.repository.checks.config_warnings import config_warnings, unset
from penstock.repository.checks.findings import Finding, error, warning
from penstock.repository.checks.folder_warnings import folder_findings, label_mismatches
from penstock.repository.checks.mlflow_check import requirement_warnings
from penstock.repository.config_ensemble import PLATFORM
from penstock.repository.config_file import located_problems, read_located, resolve
from penstock.repository.config_json import config_to_proto, proto_to_config
from penstock.repository.config_schema import LocatedConfig
from penstock.repository.dependencies import needs_of
from penstock.repository.folders import versions_in
from penstock.repository.own_parameters import own_parameters
from penstock.repository.version_policy import version_policy
from penstock.trust.sealed import SUFFIX

_PLACED: Final = re.compile(r"(?P<file>/[^:\n]*)(:(?P<line>\d+))?: (?P<text>.*)", re.DOTALL)
"""How a ConfigError says where."""
_PARAMETER: Final = re.compile(r"\bparameters?[ \[](?P<key>'[^']+'|\"[^\"]+\")")
"""How errors name one: parameter 'KEY', parameters["KEY"]."""
_KEY: Final = re.compile(r"\w+(?:\[\d+\])?(?:\.\w+(?:\[\d+\])?)*")
"""How they begin with a key of the configuration: instance_group[0]."""


@dataclass(slots=True)
class CheckedModel:
    """What is known of a model's folder."""

    name: str
    folder: Path
    present: Sequence[int] = ()
    """Versions in the folder."""
    served: Sequence[int] = ()
    """Those that the policy serves."""
    backend: str = ""
    located: LocatedConfig | None = None
    config: ConfigDict | None = None
    """As the file and the defaults have it; None: the file can't be used."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """It can't be served."""
        return any(finding.severity == "error" for finding in self.findings)

    @property
    def is_ensemble(self) -> bool:
        """It is made of other models, and has no file of its own."""
        return bool(needs_of(self.config))

    def line(self, path: str) -> tuple[str, int]:
        """The file and line of a key."""
        if self.located is None:
            return "", 0
        return str(self.located.source.path), self.located.line(path)

    def place_named_in(self, text: str) -> tuple[str, int] | None:
        """The file and line of the parameter or key that an error's text is about, if one stands in the file. What
        loads a model knows no lines."""
        given = self.located.lines if self.located is not None else {}
        keys = [found["key"][1:-1] for found in _PARAMETER.finditer(text)]
        named = [f"parameters[{key!r}]" for key in keys]
        start = _KEY.match(text)
        if start is not None and not start[0].isidentifier():
            named.append(start[0])
        # of a setting that is missing among those of a tensor, these are told of
        beside = tuple(f"parameters['{key.rpartition('.')[0]}." for key in keys if "." in key)
        named += [path for path in given if beside and path.startswith(beside)]
        return next((self.line(path) for path in named if path in given), None)


def check_model(folder: Path, settings: Settings | None = None) -> CheckedModel:
    """Read and check a model's folder; what needs a setting of the server's, against `settings`."""
    model = CheckedModel(folder.name, folder)
    try:
        model.present = versions_in(folder)
        _check_config(model)
        _check_versions(model)
        if model.config is not None:
            _check_contents(model, model.config)
            if settings is not None:
                for found in unset(model.config, settings):
                    model.findings.append(warning(str(found), *model.line(found.path)))
    except ConfigError as problem:
        model.findings.append(placed(str(problem)))
    except (PenstockError, OSError) as problem:
        place = model.place_named_in(str(problem)) or (str(folder), 0)
        model.findings.append(error(str(problem), *place))
    model.findings.sort(key=lambda finding: (finding.severity, finding.file, finding.line))
    return model


def placed(text: str, folder: str = "") -> Finding:
    """The finding of an error's text, which may begin with its place."""
    found = _PLACED.fullmatch(text)
    if found is None:
        return error(text, folder)
    return error(found["text"], found["file"], int(found["line"] or 0))


def _check_config(model: CheckedModel) -> None:
    model.located = located = read_located(model.folder)
    if located is None:
        empty = {"name": model.name}
        model.config = proto_to_config(config_to_proto(empty))
        return
    config = resolve(located, model.folder)
    for found in located_problems(config, located, model.folder):
        model.findings.append(error(str(found), *model.line(found.path)))
    try:
        own_parameters(config)
    except ConfigError as problem:
        path = str(problem).split(".string_value")[0].replace('"', "'")
        model.findings.append(error(str(problem), *model.line(path)))
    model.config = config


def _check_versions(model: CheckedModel) -> None:
    try:
        model.served = version_policy(model.config, model.present)
    except ConfigError as problem:
        model.findings.append(error(str(problem), *model.line("version_policy.specific.versions")))
        return
    if not model.served:
        text = "no version folder (a number, such as 1/)"
        model.findings.append(error(text, str(model.folder)))


def _check_contents(model: CheckedModel, config: ConfigDict) -> None:
    if model.is_ensemble:
        model.backend = PLATFORM
    plain = [version for version in model.served if not _is_encrypted(model.folder / str(version))]
    for version in plain if not model.is_ensemble else ():
        try:
            model.backend = backend_for(config, model.folder / str(version))
        except PenstockError as problem:
            version_dir = model.folder / str(version)
            # an empty one is told of below
            if any(version_dir.iterdir()):
                place = model.place_named_in(str(problem))
                place = place or _of_backend(model, config, version_dir)
                model.findings.append(error(str(problem), *place))
        else:
            if model.backend == "mlflow":
                model.findings += requirement_warnings(model.folder / str(version), config)
    judged = (
        config if model.is_ensemble else {**config, "backend": model.backend or config["backend"]}
    )
    has_class = model.backend == "torch" and not _without_class(model, plain)
    for found in config_warnings(judged, has_class=has_class):
        model.findings.append(warning(str(found), *model.line(found.path)))
    model.findings += folder_findings(model.folder, config, model.backend, plain)
    if not model.failed:
        for found in label_mismatches(model.folder, config):
            model.findings.append(warning(str(found), *model.line(found.path)))


def _is_encrypted(version_dir: Path) -> bool:
    """What is in it can be told when it is loaded only."""
    return any(path.name.endswith(SUFFIX) for path in version_dir.rglob("*"))


def _without_class(model: CheckedModel, plain: Sequence[int]) -> bool:
    """Whether no version of a PyTorch model has code that reads parameters of its own, as far as all can be seen."""
    seen = len(plain) == len(model.served)
    return seen and not any((model.folder / str(v) / "model.py").exists() for v in plain)


def _of_backend(model: CheckedModel, config: ConfigDict, version_dir: Path) -> tuple[str, int]:
    for key in ("backend", "platform"):
        if config[key]:
            return model.line(key)
    return str(version_dir), 0
