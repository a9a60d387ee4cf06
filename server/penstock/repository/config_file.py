"""Reads a model's configuration: Triton's config.pbtxt as it is, or config.yaml with its keys."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.errors import ConfigError
from penstock.model_config import ConfigDict
from penstock.repository.config_check import Problem, label_problems, problems
from penstock.repository.config_json import proto_to_config
from penstock.repository.config_pbtxt import parse_pbtxt
from penstock.repository.config_schema import LocatedConfig, to_message
from penstock.repository.config_tree import Source
from penstock.repository.config_yaml import parse_yaml

MAX_BYTES: Final = 1024 * 1024
"""A configuration larger than this is some other file."""


def read_config(model_dir: Path) -> ConfigDict | None:
    """The configuration in a model's folder, checked, with all defaults and its name.

    None where there is no file. Inputs and outputs, their datatypes and dims, and max_batch_size
    may be missing: backends complete them, and `check_complete` checks the rest.
    Raises ConfigError: `path:line: what was wrong; what was expected`.
    """
    located = read_located(model_dir)
    if located is None:
        return None
    return checked(located, model_dir)


def checked(located: LocatedConfig, model_dir: Path) -> ConfigDict:
    """The configuration with its defaults and its name. Raises ConfigError at the first thing that is wrong."""
    config = resolve(located, model_dir)
    for problem in located_problems(config, located, model_dir):
        raise located.source.error(located.line(problem.path), str(problem))
    return config


def read_located(model_dir: Path) -> LocatedConfig | None:
    """The file in a model's folder, all of whose keys are known and have values of their types.

    Raises ConfigError as `read_config`.
    """
    pbtxt = _read(model_dir / "config.pbtxt")
    yaml = _read(model_dir / "config.yaml")
    if pbtxt is not None and yaml is not None:
        raise ConfigError(f"{pbtxt.path} and {yaml.path} are both there; expected only one of them")
    if pbtxt is not None:
        return to_message(parse_pbtxt(pbtxt), pbtxt, maps_are_mappings=False)
    if yaml is not None:
        return to_message(parse_yaml(yaml), yaml, maps_are_mappings=True)
    return None


def resolve(located: LocatedConfig, model_dir: Path) -> ConfigDict:
    """What the file says, with all defaults."""
    config = proto_to_config(located.message)
    _fill_in(config, located, model_dir)
    return config


def located_problems(
    config: ConfigDict, located: LocatedConfig, model_dir: Path
) -> Iterator[Problem]:
    """All that is wrong in it."""
    yield from _name_problems(config, model_dir)
    yield from problems(config, batching_known="max_batch_size" in located.lines)
    yield from label_problems(config, model_dir)


def _fill_in(config: ConfigDict, located: LocatedConfig, model_dir: Path) -> None:
    """Defaults that are not protobuf's zeros."""
    if not config["name"] or config["name"] == _link_target(model_dir):
        config["name"] = model_dir.name
    for group in config["instance_group"]:
        group["count"] = group["count"] or 1
    latest = config.get("version_policy", {}).get("latest")
    if latest is not None and "version_policy.latest.num_versions" not in located.lines:
        latest["num_versions"] = 1


def _link_target(model_dir: Path) -> str:
    """The name of the folder that the model's folder is a link to: the model may be called so too."""
    return model_dir.resolve().name if model_dir.is_symlink() else ""


def _name_problems(config: ConfigDict, model_dir: Path) -> Iterator[Problem]:
    if config["name"] != model_dir.name:
        text = f"is {config['name']!r}; expected {model_dir.name!r}, the name of the model's folder"
        yield Problem("name", text)


def _read(path: Path) -> Source | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: not a file; expected a model's configuration")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ConfigError(f"{path}: can't be read: a link to nothing") from error
        return None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: over {MAX_BYTES} bytes; expected a model's configuration")
    return Source(path, _decode(path, content))


def _decode(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        text = f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; expected UTF-8 text"
        raise ConfigError(text) from error
