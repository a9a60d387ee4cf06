"""Notices which models' folders have changed and come to rest."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from penstock.repository.fingerprint import whole_fingerprint
from penstock.repository.folders import find_models, versions_in

log = logging.getLogger(__name__)

Looks = Mapping[str, bytes]
"""Model → what its folders look like."""


def look(repositories: Iterable[Path]) -> dict[str, bytes]:
    """Walk all folders; it blocks. Raises OSError when a repository can't be read."""
    return {name: _look(folders) for name, folders in find_models(repositories).items()}


async def poll(
    repositories: Iterable[Path],
    period_s: float,
    watch: FolderWatch,
    follow: Callable[[list[str], Looks], object],
) -> None:
    """Look at all folders again and again, and tell `follow` which have changed. A look is a walk in a thread."""
    problem = ""
    while True:
        await asyncio.sleep(period_s)
        try:
            looks = await asyncio.to_thread(look, repositories)
        except OSError as error:
            # said once: it may last
            if problem != str(error):
                problem = str(error)
                log.warning("the model repository can't be read, nothing changes: %s", error)
            continue
        problem = ""
        if changed := watch.changes(looks):
            follow(changed, looks)


class FolderWatch:
    """Compares looks, and has no clock.

    A change counts when two looks in a row have seen the same: until then files may be half there.
    """

    def __init__(self) -> None:
        self._applied: dict[str, bytes] = {}
        self._last: Looks = {}

    def start(self, looks: Looks) -> None:
        """This is what is loaded at start."""
        self._applied = dict(looks)
        self._last = looks

    def changes(self, looks: Looks) -> list[str]:
        """Models that are to be loaded, loaded anew, or unloaded. Each change is told once, whatever comes of it."""
        changed = [
            name
            for name in sorted(self._applied.keys() | looks.keys())
            if looks.get(name) != self._applied.get(name)
            and looks.get(name) == self._last.get(name)
        ]
        for name in changed:
            if name in looks:
                self._applied[name] = looks[name]
            else:
                del self._applied[name]
        self._last = looks
        return changed


def _look(folders: Iterable[Path]) -> bytes:
    seen = []
    for folder in folders:
        versions = _versions(folder)
        seen.append((os.fsencode(folder), versions, whole_fingerprint(folder, versions)))
    return hashlib.blake2b(msgspec.msgpack.encode(seen), digest_size=16).digest()


def _versions(folder: Path) -> list[int]:
    """A version's folder may be empty, and is one for all that."""
    try:
        return versions_in(folder)
    except OSError:
        return []
