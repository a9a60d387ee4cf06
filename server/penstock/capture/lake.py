"""The files of records: begun out of everybody's sight, complete when they are seen, and swept where a crash left them.

FOLDER/model=NAME/date=2026-11-28/part-….parquet      complete
FOLDER/.inprogress/part-….parquet                     not yet: readers of tables leave such folders out
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

UNFINISHED: Final = ".inprogress"
COMPRESSION: Final = "zstd"


def model_folder(folder: Path, model: str) -> Path:
    """Where a model's table lies."""
    return folder / f"model={quote(model, safe='')}"


def date_of(time_us: int) -> str:
    """The day (UTC) of a moment, as folders are called by it."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d")


def sweep(folder: Path) -> int:
    """Remove what writers have left that are not any more. Returns how many files. Raises OSError."""
    removed = 0
    unfinished = folder / UNFINISHED
    for path in list(unfinished.iterdir()) if unfinished.is_dir() else []:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # its writer lives: another server's, of the same folder
                continue
            path.unlink()
            removed += 1
    return removed


def prepare(folder: Path) -> None:
    """Make the folders, and see that they can be written. Raises OSError."""
    unfinished = folder / UNFINISHED
    _make(unfinished)
    probe = unfinished / f"probe-{secrets.token_hex(8)}"
    with _create(probe):
        probe.unlink()


class LakeFile:
    """One file, from its first rows until it is complete."""

    def __init__(self, folder: Path, model: str, date: str, schema: pa.Schema) -> None:
        """Raises OSError."""
        self.rows = 0
        self.records = 0
        self._target_folder: Final = model_folder(folder, model) / f"date={date}"
        _make(folder / UNFINISHED)
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._path: Final = folder / UNFINISHED / f"part-{moment}-{secrets.token_hex(8)}.parquet"
        self._file: Final = _create(self._path)
        self._writer: Any = None
        try:
            self._writer = pq.ParquetWriter(self._file, schema, compression=COMPRESSION)
        except BaseException:
            self.drop()
            raise

    @property
    def nbytes(self) -> int:
        """How long it is by now."""
        return self._file.tell()

    def write(self, rows: pa.Table, records: int) -> None:
        """Add rows, which are of so many records. Raises OSError."""
        self._writer.write_table(rows)
        self.rows += rows.num_rows
        self.records += records

    def finish(self) -> Path:
        """Make it complete: it is on the disk, and seen, when this returns. Raises OSError."""
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        _make(self._target_folder)
        target = self._target_folder / self._path.name
        os.rename(self._path, target)
        self._file.close()
        _sync(self._target_folder)
        return target

    def drop(self) -> None:
        """It is of no use."""
        if self._writer is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


def _make(folder: Path) -> None:
    """One, and those above it, which nobody else may look into."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _create(path: Path) -> BinaryIO:
    """A new file that nobody else may read, and that is known to be in use."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o600), "w+b")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
