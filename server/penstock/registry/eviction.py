"""Keeps the cache within its limit: what nobody serves goes, what was served last goes last."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from typing import Final

from penstock.registry.cache import Cache
from penstock.registry.fetch import on_their_way
from penstock.registry.manifest import Manifest

log = logging.getLogger(__name__)

FRESH_S: Final = 600.0
"""A file that no version has, and no fetch's journal, may have come this moment."""


def evict(cache: Cache, limit: int, now_s: float) -> tuple[int, int]:
    """Remove versions until the files take no more than `limit` bytes, as far as that can be: those that a running
    server has in its view, and those that a restart may need, stay. Returns the bytes that are there, and were removed.

    It blocks. 0: no limit.
    """
    blobs = cache.blobs()
    total = sum(status.st_size for status in blobs.values())
    if not limit or total <= limit:
        return total, 0
    removed = 0
    needed = _needed(cache)
    versions = sorted(cache.manifests(), key=lambda each: each[1])
    kept = [
        m
        for path, _, m in versions
        if (path.parent.parent.name, path.parent.name, m.version) in needed
    ]
    coming = on_their_way(cache)
    kept_files = _files(kept) | coming
    free = [(path, m) for path, _, m in versions if m not in kept]
    # what belongs to no version at all goes first
    orphans = blobs.keys() - _files(m for _, _, m in versions) - coming
    for digest in orphans:
        if blobs[digest].st_mtime < now_s - FRESH_S and blobs[digest].st_nlink == 1:
            removed += _remove(cache, digest, blobs[digest].st_size)
    for index, (path, manifest) in enumerate(free):
        if total - removed <= limit:
            break
        others = kept_files | _files(m for _, m in free[index + 1 :])
        own = {f.sha256: f.size for f in manifest.files.values() if f.sha256 not in others}
        if any(blobs[digest].st_nlink > 1 for digest in own if digest in blobs):
            # a server has it in its view
            kept_files |= own.keys()
            continue
        path.unlink(missing_ok=True)
        removed += sum(_remove(cache, digest, size) for digest, size in own.items())
    if total - removed > limit:
        log.warning(
            "the registry's cache takes %d bytes, over its limit of %d: all that is left is served, or may be needed"
            " for a restart",
            total - removed,
            limit,
        )
    return total - removed, removed


def _needed(cache: Cache) -> set[tuple[str, str, int]]:
    """Registry's key, model's file name, version: what references last meant."""
    return {
        (*where.split("/", 1), version)  # type: ignore[misc]
        for where, known in cache.all_known()
        for version in known.meant.values()
    }


def _files(manifests: Iterable[Manifest]) -> set[str]:
    return {file.sha256 for manifest in manifests for file in manifest.files.values()}


def _remove(cache: Cache, digest: str, size: int) -> int:
    with contextlib.suppress(OSError):
        cache.blob(digest).unlink()
        return size
    return 0
