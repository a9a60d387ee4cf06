"""Brings the files of one version into the cache, one by one, and goes on where a fetch before it was killed."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from penstock.errors import LinkOutside, LoadFailed, Unavailable
from penstock.registry.artifact_paths import check_paths
from penstock.registry.cache import Cache
from penstock.registry.manifest import CachedFile, Manifest, digest_of

log = logging.getLogger(__name__)

SPARE_BYTES: Final = 64 << 20
"""Of the disk, that a fetch leaves free: others write to it too."""
_JOURNAL: Final = "journal"
_FILE: Final = "file"


class Artifacts(Protocol):
    """Where a version's files are. Its methods block, and raise NotFound, Unavailable, LinkOutside, OSError."""

    def files(self) -> Mapping[str, int | None]:
        """Path → size; None: not known."""
        ...

    def copy(self, path: str, target: Path) -> str:
        """Write a file's content to `target`, which is not there yet. Returns its SHA-256."""
        ...


class Fetched(msgspec.Struct, frozen=True):
    """A line of a fetch's journal: this file is in the cache."""

    source: str
    path: str
    sha256: str
    size: int


def fetch(
    cache: Cache,
    artifacts: Artifacts,
    *,
    model: str,
    version: int,
    source: str,
    run_id: str,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """All files of the version are in the cache after it. `on_bytes` hears how many came.

    Another server that fetches the same is waited for, and what it has brought is taken. Raises NotFound, Unavailable,
    LoadFailed (LinkOutside among them), OSError.
    """
    with cache.fetching(model, version) as folder:
        manifest = cache.manifest(model, version)
        if manifest is not None and manifest.source == source and _is_whole(cache, manifest):
            return manifest
        listed = artifacts.files()
        check_paths(listed)
        if not listed:
            raise LoadFailed(f"it has no files at {source}")
        journal = _Journal(folder / _JOURNAL, source)
        # what is sound of one that was damaged, and what a fetch brought that was killed
        before = manifest.files if manifest is not None and manifest.source == source else {}
        known = {**before, **journal.read()}
        have = {p: f for p, f in known.items() if _is_the_same(cache, f, listed.get(p, -1))}
        _check_room(cache, sum(size or 0 for path, size in listed.items() if path not in have))
        with contextlib.closing(journal):
            for path, size in listed.items():
                if path not in have:
                    have[path] = _bring(cache, artifacts, path, size, folder)
                    journal.add(path, have[path])
                    on_bytes(have[path].size)
        files = {path: have[path] for path in listed}
        manifest = Manifest(
            model=model,
            version=version,
            source=source,
            run_id=run_id,
            files=files,
            content=digest_of(files),
        )
        cache.keep(manifest)
        cache.finished(folder)
        return manifest


def _bring(
    cache: Cache, artifacts: Artifacts, path: str, size: int | None, folder: Path
) -> CachedFile:
    file = folder / _FILE
    # what one that was killed has left
    file.unlink(missing_ok=True)
    digest = artifacts.copy(path, file)
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise LinkOutside(f"{path!a} came as something else than a file")
    if size is not None and status.st_size != size:
        raise Unavailable(f"{path!a}: {status.st_size} bytes came, expected {size}")
    cache.put(file, digest)
    return CachedFile(digest, status.st_size)


def _is_whole(cache: Cache, manifest: Manifest) -> bool:
    return all(cache.has(file.sha256, file.size) for file in manifest.files.values())


def _is_the_same(cache: Cache, file: CachedFile, size: int | None) -> bool:
    return size in (None, file.size) and cache.has(file.sha256, file.size)


def _check_room(cache: Cache, needed: int) -> None:
    free = cache.free_bytes()
    if needed + SPARE_BYTES > free:
        text = f"{cache.folder}: {needed} bytes are to come, and {SPARE_BYTES} to stay free; {free} are"
        raise OSError(errno.ENOSPC, text)


def on_their_way(cache: Cache) -> set[str]:
    """Digests of files that fetches which are going on have brought so far: no version has them yet."""
    return {line.sha256 for folder in cache.being_fetched() for line in _lines(folder / _JOURNAL)}


def _lines(journal: Path) -> Iterator[Fetched]:
    try:
        lines = journal.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError):
            yield msgspec.json.decode(line, type=Fetched)


class _Journal:
    """Which files a fetch has brought so far. A line is written when its file is in the cache."""

    def __init__(self, path: Path, source: str) -> None:
        self._path: Final = path
        self._source: Final = source
        self._descriptor = -1

    def read(self) -> dict[str, CachedFile]:
        """What an earlier fetch of the same source has brought. A line that was cut off is left out."""
        return {
            line.path: CachedFile(line.sha256, line.size)
            for line in _lines(self._path)
            if line.source == self._source
        }

    def add(self, path: str, file: CachedFile) -> None:
        """Raises OSError."""
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
        line = msgspec.json.encode(Fetched(self._source, path, file.sha256, file.size))
        # begins with an end: the line before may have been cut off
        os.write(self._descriptor, b"\n" + line + b"\n")

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
