"""Which files a version of a model has, and what the cache remembers of models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from penstock import model_digest


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
        left_out = model_digest.NOT_THE_MODELS
        return model_digest.digest_of(
            {path: f.sha256 for path, f in self.files.items() if path.encode() not in left_out}
        )


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry last said of a model."""

    meant: Mapping[str, int] = {}
    """A reference's part → the version that it meant, and that was served."""
    aliases: Mapping[str, int] = {}


def digest_of(files: Mapping[str, CachedFile]) -> str:
    """Of all that is said of the files."""
    lines = [f"{path}\0{file.sha256} {file.size}\n" for path, file in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
