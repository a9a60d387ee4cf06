"""What a model is loaded from: its folder and its configuration, those on disk or those that a request gave."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penstock import model_config
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict
from penstock.repository.config_file import read_config
from penstock.repository.config_given import given_config
from penstock.repository.dependencies import needs_of
from penstock.repository.fingerprint import fingerprint
from penstock.repository.folders import folders_of, only_folder, versions_in
from penstock.repository.overrides import KeptOverride
from penstock.repository.version_policy import version_policy


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model as it lies there now."""

    folder: Path
    config: ConfigDict | None
    """None: a backend finds out all by itself."""
    keys: dict[int, bytes]
    """The versions to serve → what they are made of: another key where a file or the configuration is another one."""
    override: KeptOverride | None = None
    """What a request gave; None: all is as it lies on disk."""
    from_registry: bool = False
    """Each version was chosen by itself: all are served, whatever a policy says, and one that fails stops no other."""


def read_source(
    name: str,
    repositories: Iterable[Path],
    override: KeptOverride | None,
    registry_view: Path | None = None,
) -> ModelSource:
    """Look now; it blocks. `registry_view`: the repository of models that a registry has. Raises LoadFailed,
    ConfigError, OSError."""
    folder, config = _read(name, repositories, override)
    from_registry = registry_view is not None and folder.parent == registry_view
    present = versions_in(folder)
    versions = tuple(present) if from_registry else version_policy(config, present)
    if not versions:
        where = folder if override is None or override.model_dir is None else "the files given"
        empty = ", empty for an ensemble" if needs_of(config) else ""
        raise LoadFailed(f"no version folder (a number, such as 1/{empty}) in {where}")
    keys = {v: _key(folder, v, config) for v in versions}
    return ModelSource(folder, config, keys, override, from_registry)


def read_configuration(
    name: str, repositories: Iterable[Path], override: KeptOverride | None
) -> ConfigDict | None:
    """The configuration alone. It blocks, and raises as `read_source` does."""
    return _read(name, repositories, override)[1]


def _read(
    name: str, repositories: Iterable[Path], override: KeptOverride | None
) -> tuple[Path, ConfigDict | None]:
    folder = override.model_dir if override is not None else None
    if folder is None:
        folder = only_folder(name, folders_of(name, repositories), repositories)
    return folder, read_config(folder) if override is None else given_config(
        override.config, folder
    )


def _key(folder: Path, version: int, config: ConfigDict | None) -> bytes:
    source = b"" if config is None else model_config.to_json(config)
    content = msgspec.msgpack.encode((os.fsencode(folder), source, fingerprint(folder, version)))
    return hashlib.blake2b(content, digest_size=32).digest()
