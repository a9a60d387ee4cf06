"""`registry.toml` in a model's folder of a repository: the model is taken from the registry."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from penstock.errors import ConfigError, InvalidRequest
from penstock.registry_config import ENTRY
from penstock.registry_refs import RegistryRef, parse_ref

FIELDS: Final = ("uri",)
HIDDEN: Final = (".", "__")


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """A model's folder that holds one."""

    name: str
    folder: Path
    ref: RegistryRef | None
    problem: str = ""
    """Why there is no reference."""
    beside: Mapping[str, Path] = field(default_factory=dict)
    """Path within the folder → file: what all versions share, such as config.pbtxt."""


def find_entries(repositories: Iterable[Path]) -> list[RepositoryEntry]:
    """All of them, by name. A repository that can't be read has none: who serves it says so."""
    return sorted((e for r in repositories for e in _entries_in(r)), key=lambda entry: entry.name)


def has_entries(repositories: Iterable[Path]) -> bool:
    """Whether there is one."""
    return any(True for repository in repositories for _ in _folders(repository))


def read_entry(folder: Path) -> RegistryRef:
    """What the folder's file says. Raises ConfigError."""
    path = folder / ENTRY
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    for name in values:
        if name not in FIELDS:
            raise ConfigError(f"{path}: {name}: no such setting, expected {', '.join(FIELDS)}")
    uri = values.get("uri")
    if not isinstance(uri, str) or not uri.startswith("models:"):
        raise ConfigError(f'{path}: uri: expected a reference, as uri = "models:/digits@champion"')
    if versions := [n for n in os.listdir(folder) if _is_number(n) and (folder / n).is_dir()]:
        raise ConfigError(
            f"{path}: the model is taken from the registry, and its folder has version {min(versions)}:"
            " expected only one of them"
        )
    try:
        return parse_ref(uri, folder.name)
    except InvalidRequest as error:
        raise ConfigError(f"{path}: uri: {error}") from None


def _entries_in(repository: Path) -> Iterator[RepositoryEntry]:
    for folder in _folders(repository):
        try:
            ref = read_entry(folder)
        except (ConfigError, OSError) as error:
            yield RepositoryEntry(folder.name, folder, None, str(error))
        else:
            yield RepositoryEntry(folder.name, folder, ref, "", dict(_beside(folder)))


def _folders(repository: Path) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(repository))
    except OSError:
        return
    for name in names:
        if not name.startswith(HIDDEN) and (repository / name / ENTRY).is_file():
            yield repository / name


def _beside(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(files):
            path = Path(folder, name)
            if path != root / ENTRY:
                yield os.path.relpath(path, root), path


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
