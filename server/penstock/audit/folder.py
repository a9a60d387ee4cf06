"""The log's folder: its files by number, and the lock that its writers share. All is reached through the folder's own
descriptor, so that no part of it can be swapped under a writer's hands."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

HEAD: Final = "head.json"
_NEXT_HEAD: Final = "head.json.next"
_NAME: Final = re.compile(r"audit-([0-9]{6,9})\.jsonl")
_MAX_HEAD_BYTES: Final = 16 << 10


def file_name(number: int) -> str:
    """`audit-000001.jsonl`."""
    return f"audit-{number:06d}.jsonl"


class Folder:
    """An open folder."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.descriptor: Final = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @classmethod
    @contextmanager
    def locked(cls, path: Path, *, shared: bool = False) -> Iterator[Folder]:
        """The folder, held against all other writers. Raises OSError."""
        folder = cls(path)
        try:
            fcntl.flock(folder.descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(folder.descriptor)

    def numbers(self) -> list[int]:
        """Of the files that there are, in order."""
        found = (_NAME.fullmatch(name) for name in os.listdir(self.descriptor))
        return sorted(int(match[1]) for match in found if match and _is_usual(match))

    def open(self, number: int, flags: int, mode: int = 0) -> int:
        """A descriptor of a file. Follows no symbolic link."""
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(file_name(number), flags, mode, dir_fd=self.descriptor)

    def unlink(self, number: int) -> None:
        """Remove a file."""
        os.unlink(file_name(number), dir_fd=self.descriptor)

    def create_aside(self, name: str) -> int:
        """A descriptor of a new file that is none of the log's own."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self.descriptor)

    def rename_aside(self, number: int, name: str) -> None:
        """Make a file none of the log's own."""
        old, folder = file_name(number), self.descriptor
        os.rename(old, name, src_dir_fd=folder, dst_dir_fd=folder)

    def sync(self) -> None:
        """Names of files that were made or renamed last from now on."""
        os.fsync(self.descriptor)

    def read_head(self) -> bytes | None:
        """The head's line; None: there is none."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(HEAD, flags, dir_fd=self.descriptor)
        except FileNotFoundError:
            return None
        try:
            return os.read(descriptor, _MAX_HEAD_BYTES)
        finally:
            os.close(descriptor)

    def write_head(self, line: bytes, mode: int) -> None:
        """Put a head in the old one's place: whoever reads finds one or the other. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(_NEXT_HEAD, flags, mode, dir_fd=self.descriptor)
        try:
            os.fchmod(descriptor, mode)
            write_all(descriptor, line)
            # before it has its name: after a loss of power it must not be found empty
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(_NEXT_HEAD, HEAD, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, or raise OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _is_usual(match: re.Match[str]) -> bool:
    """audit-0000001 is not a file of ours."""
    return match[0] == file_name(int(match[1]))
