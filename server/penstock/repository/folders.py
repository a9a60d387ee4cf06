"""What lies in the folders of a repository: models, and their versions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from penstock.errors import ConfigError, InvalidRequest, LoadFailed, NotFound
from penstock.registry_config import ENTRY

log = logging.getLogger(__name__)

HIDDEN: Final = (".", "__")
"""What the names of folders begin with that are no models."""
MAX_VERSION: Final = 2**63 - 1
MAX_NAME_BYTES: Final = 255
"""Of a file's or folder's name, as file systems have it."""


def find_models(repositories: Iterable[Path]) -> dict[str, list[Path]]:
    """Model folders by name; more than one when repositories hold the same name. Those of models that are taken from a
    registry are left out: they lie elsewhere. Raises OSError."""
    found: dict[str, list[Path]] = {}
    for repository in repositories:
        for folder in sorted(repository.iterdir()):
            if not folder.is_dir() or folder.name.startswith(HIDDEN) or (folder / ENTRY).exists():
                continue
            if not _is_text(folder.name):
                log.error("%a is not served: its name is not UTF-8", str(folder))
            else:
                found.setdefault(folder.name, []).append(folder)
    return found


def folders_of(name: str, repositories: Iterable[Path]) -> list[Path]:
    """The folders of one model, as `find_models` finds them, without a look at all others."""
    if not name or name.startswith(HIDDEN) or "/" in name or "\0" in name or not _is_text(name):
        return []
    if len(name.encode()) > MAX_NAME_BYTES:
        return []
    folders = [folder for folder in (path / name for path in repositories) if folder.is_dir()]
    return [folder for folder in folders if not (folder / ENTRY).exists()]


def only_folder(name: str, folders: Sequence[Path] | None, repositories: Iterable[Path]) -> Path:
    """The folder of the model. Raises LoadFailed where there is none, ConfigError where there are more."""
    if not folders:
        raise LoadFailed(no_folder(name, repositories))
    if len(folders) > 1:
        raise ConfigError(
            f"'{name}' is in more than one repository: {', '.join(map(str, folders))}"
        )
    return folders[0]


def repository_named(name: str, repositories: Sequence[Path]) -> Path:
    """The repository of that path, or whose folder has that name. Raises NotFound, InvalidRequest on two such."""
    found = [path for path in repositories if name in (str(path), path.name)]
    if not found:
        # whoever asks may be anybody: they are told what they can ask for, and no paths
        known = ", ".join(path.name for path in repositories)
        raise NotFound(f"model repository {name[:200]!a} is not found; this server has {known}")
    if len(found) > 1:
        raise InvalidRequest(
            f"more than one model repository is named {name[:200]!a}, expected one of the paths "
            f"{', '.join(map(str, found))}"
        )
    return found[0]


def no_folder(name: str, repositories: Iterable[Path]) -> str:
    """Says that there is none."""
    return f"no folder named '{name}' in {', '.join(map(str, repositories))}"


def versions_in(folder: Path) -> list[int]:
    """The versions that the model's folder holds, lowest first. Raises OSError."""
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isascii()
        and path.name.isdigit()
        and 0 < int(path.name) <= MAX_VERSION
        and path.is_dir()
    )


def _is_text(name: str) -> bool:
    """Whether messages and answers can carry the name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
