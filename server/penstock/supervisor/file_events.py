"""Hears of changes of files as they happen (Linux's inotify), and of those that are still being written."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_MODIFY: Final = 0x2
_CLOSE_WRITE: Final = 0x8
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_ONLYDIR: Final = 0x01000000
_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_WANTED: Final = _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_HEAD: Final = struct.Struct("iIII")
_READ_BYTES: Final = 64 << 10


class FileEvents:
    """Of the folders where some files lie: a file that is replaced, by a link too, is seen there.

    Where there is no inotify, or no more of it to be had, `hears` says so: one has to look then, and wait.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._files: Final = frozenset(files)
        self._folders: Final = frozenset(file.parent for file in self._files)
        self._watched: dict[int, Path] = {}
        self._writing: set[Path] = set()
        self._happened = asyncio.Event()
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._descriptor = -1 if self._libc is None else self._libc.inotify_init1(os.O_NONBLOCK)
        if self._descriptor >= 0:
            os.set_inheritable(self._descriptor, False)
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    async def wait(self, timeout_s: float) -> bool:
        """Whether something has happened since the last call, or does within that time."""
        self._watch_all()
        try:
            async with asyncio.timeout(timeout_s):
                await self._happened.wait()
        except TimeoutError:
            return False
        self._happened.clear()
        return True

    def hears(self, file: Path) -> bool:
        """Whether it is known when someone writes this file."""
        return file.parent in self._watched.values()

    def being_written(self, file: Path) -> bool:
        """Whether someone has begun to write this file, and has not closed it."""
        return file in self._writing

    def close(self) -> None:
        """Hear no more."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _watch_all(self) -> None:
        """A folder may have been away for a while."""
        if self._descriptor < 0 or self._libc is None:
            return
        for folder in self._folders - set(self._watched.values()):
            watch = self._libc.inotify_add_watch(
                self._descriptor, os.fsencode(folder), _WANTED | _ONLYDIR
            )
            if watch >= 0:
                self._watched[watch] = folder

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            if self._take(watch, mask, name):
                self._happened.set()

    def _take(self, watch: int, mask: int, name: str) -> bool:
        """Whether it may concern the files: one, or a link on the way to one. Others write in the folder too."""
        if mask & _OVERFLOW:
            self._writing.clear()
        elif mask & _IGNORED:
            self._watched.pop(watch, None)
        elif (folder := self._watched.get(watch)) is not None:
            path = folder / name
            if path not in self._files:
                return not mask & (_MODIFY | _CLOSE_WRITE)
            if mask & _MODIFY:
                self._writing.add(path)
            elif mask & (_CLOSE_WRITE | _MOVED_TO | _DELETE | _MOVED_FROM):
                # one that is renamed over it is whole
                self._writing.discard(path)
        return True
