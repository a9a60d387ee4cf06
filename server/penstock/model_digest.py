"""What a model version is known by wherever it went: one digest of the files in its folder, the same for whoever
trains it, registers it, signs it, serves it, and keeps records of its answers."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = "sha256:"
NOT_THE_MODELS: Final = frozenset({b"model.sig", b"release.json"})
"""Of the version's folder: what a signature adds. The digest is the same before and after a version is signed."""

_CHUNK_BYTES: Final = 1 << 20


def folder_digest(version_dir: str | os.PathLike[str]) -> str:
    """`sha256:` and 64 hex digits, over `path`, a zero byte, and the file's own SHA-256 in hex, one line a file, sorted
    by path (bytes, `/` between its parts). Links count as what they lead to. What is no file, a signature's two files,
    and what Python writes by itself (`__pycache__`) do not count. It blocks. Raises OSError.
    """
    return digest_of(file_digests(version_dir))


def digest_of(files: dict[str, str]) -> str:
    """The digest of files whose own digests (`file_digests`) are known."""
    total = hashlib.sha256()
    for path, digest in sorted((os.fsencode(path), digest) for path, digest in files.items()):
        total.update(path + b"\0" + digest.encode() + b"\n")
    return PREFIX + total.hexdigest()


def file_digests(version_dir: str | os.PathLike[str]) -> dict[str, str]:
    """The files that count, and the SHA-256 of each in hex. It blocks. Raises OSError."""
    root = Path(version_dir)
    return {os.fsdecode(path): _sha256(root / os.fsdecode(path)) for path in sorted(_paths(root))}


def _paths(root: Path) -> Iterator[bytes]:
    """Files below `root`, those in folders that are linked there too."""
    top = os.fsencode(root)
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(top, followlinks=True, onerror=_raise):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            # a link to a folder that it lies in, or a second one
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # the order decides which of two links to one folder counts
        folders[:] = sorted(name for name in folders if name != b"__pycache__")
        for name in files:
            path = os.path.join(folder, name)
            if _is_file(path) and not (folder == top and name in NOT_THE_MODELS):
                yield os.path.relpath(path, top)


def _is_file(path: bytes) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        # a link to nothing
        return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _raise(error: OSError) -> None:
    raise error
