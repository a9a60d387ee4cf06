"""Which files a version of a model has, and what the cache remembers of models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

LEFT_OUT: Final = frozenset({"model.sig", "release.json"})
"""They are about the other files, and no part of a version's digest."""


class CachedFile(msgspec.Struct, frozen=True):
    """A file of a version."""

    sha256: str
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All files of a version, and where they come from."""

    model: str
    version: int
    source: str = ""
    run_id: str = ""
    files: Mapping[str, CachedFile]
    """Path within the version's folder → the file."""
    content: str
    """Digest of `files`, by which damage is found."""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())

    @property
    def digest(self) -> str:
        """As `model_digest` of the version's folder."""
        own = {path: file for path, file in self.files.items() if path not in LEFT_OUT}
        return f"sha256:{digest_of(own)}"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry last said of a model."""

    meant: Mapping[str, int] = {}
    """A reference's part → the version that it meant, and that was served."""
    aliases: Mapping[str, int] = {}


def digest_of(files: Mapping[str, CachedFile]) -> str:
    """Of paths and contents: SHA-256 over `path NUL digest-in-hex` of all files in the order of their paths."""
    content = hashlib.sha256()
    for path, file in sorted(files.items()):
        content.update(f"{path}\0{file.sha256}".encode())
    return content.hexdigest()
