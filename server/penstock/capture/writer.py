"""Takes records, gathers them by table and day, and makes files of them that are complete in time."""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa

from penstock.capture.arrow import Row, rows_of, schema_of, to_arrow
from penstock.capture.columns import Table
from penstock.capture.lake import LakeFile, date_of
from penstock.capture.messages import Kept, Record, Written
from penstock.capture.redaction import Redaction
from penstock.capture_config import CaptureSettings
from penstock.errors import PenstockError

log = logging.getLogger(__name__)

GROUP_BYTES: Final = 8 << 20
"""Rows of one file that are gathered in memory before they are written into it."""
MEMORY_BYTES: Final = 64 << 20
"""Rows of all files together."""
ROW_BYTES: Final = 256
"""What a row takes beside its tensors, about."""


class Published(Protocol):
    """Is told of each file that is complete."""

    def __call__(self, path: Path, schema: pa.Schema, rows: int) -> None:
        """Raises OSError, PenstockError."""
        ...


def files_alone(path: Path, schema: pa.Schema, rows: int) -> None:
    """Files are all there is."""


class _Open:
    """Rows of one table and day: those in its file, and those that are gathered for it."""

    def __init__(self, table: Table, date: str, now: float) -> None:
        self.table: Final = table
        self.date: Final = date
        self.began_at: Final = now
        self.schema: Final = schema_of(table)
        self.file: LakeFile | None = None
        self.rows: list[Row] = []
        self.records = 0
        """Of the rows that are gathered."""
        self.nbytes = 0

    @property
    def all_records(self) -> int:
        """In the file too."""
        return self.records + (self.file.records if self.file is not None else 0)

    @property
    def all_rows(self) -> int:
        """In the file too."""
        return len(self.rows) + (self.file.rows if self.file is not None else 0)


class Writer:
    """All tables of a lake. Its methods block; it has no thread and no socket."""

    def __init__(
        self,
        settings: CaptureSettings,
        redaction: Redaction,
        publish: Published = files_alone,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert settings.folder is not None, "without a folder there is no writer"
        self._settings = settings
        self._folder: Final = settings.folder
        self._redaction = redaction
        self._publish = publish
        self._clock = clock
        self._tables: dict[int, Table] = {}
        self._open: dict[tuple[Table, str], _Open] = {}
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._gathered_bytes = 0
        self.written = Written(0, 0, 0, 0, False)

    def take(self, entry: Table | Record) -> None:
        """A table that records may be of from now on, or a record."""
        if isinstance(entry, Table):
            self._tables[entry.number] = entry
        else:
            self._add(self._tables[entry.table], entry)

    def forget_tables(self) -> None:
        """Another gateway numbers them otherwise."""
        self._tables.clear()

    @property
    def due_in_s(self) -> float | None:
        """When the next file is due to be complete; None: there is none."""
        oldest = min((each.began_at for each in self._open.values()), default=None)
        if oldest is None:
            return None
        return max(oldest + self._settings.rotate_secs - self._clock(), 0.0)

    def finish_due(self) -> None:
        """Make those files complete that are due."""
        due = self._clock() - self._settings.rotate_secs
        for each in list(self._open.values()):
            if each.began_at <= due:
                self._finish(each)

    def finish_all(self) -> None:
        """Make all files complete."""
        for each in list(self._open.values()):
            self._finish(each)

    # ── rows → groups → files ───────────────────────────────────────────────────────────────────────────────────────

    def _add(self, table: Table, record: Record) -> None:
        date = date_of(record.time_us)
        target = self._open.get((table, date))
        if target is None:
            target = self._open[table, date] = _Open(table, date, self._clock())
        name = f"{self._prefix}-{next(self._numbers)}"
        before = len(target.rows)
        target.rows += rows_of(table, record, name)
        target.records += 1
        nbytes = sum(map(_size, target.rows[before:]))
        target.nbytes += nbytes
        self._gathered_bytes += nbytes
        if target.all_rows >= self._settings.rotate_rows:
            self._finish(target)
        elif target.nbytes >= GROUP_BYTES:
            self._flush(target)
        elif self._gathered_bytes >= MEMORY_BYTES:
            for each in list(self._open.values()):
                self._flush(each)

    def _flush(self, target: _Open) -> None:
        """Write what is gathered into the file. One that can't be written is given up, with all that is in it."""
        try:
            self._write(target)
        except (OSError, pa.ArrowException, PenstockError) as error:
            self._give_up(target, error)
            return
        if target.file is not None and target.file.nbytes >= self._settings.rotate_bytes:
            self._finish(target)

    def _write(self, target: _Open) -> None:
        if not target.rows:
            return
        rows = to_arrow(target.table, target.schema, target.rows, self._redaction)
        if target.file is None:
            target.file = LakeFile(self._folder, target.table.model, target.date, target.schema)
        target.file.write(rows, target.records)
        self._gathered_bytes -= target.nbytes
        target.rows, target.records, target.nbytes = [], 0, 0

    def _finish(self, target: _Open) -> None:
        try:
            self._write(target)
            file = target.file
            assert file is not None, "there is no file without a row"
            nbytes = self._complete(file, target.schema)
        except (OSError, pa.ArrowException, PenstockError) as error:
            self._give_up(target, error)
            return
        del self._open[target.table, target.date]
        before = self.written
        if before.failing:
            log.warning("captured requests can be written again")
        self.written = Written(
            before.records + file.records,
            before.lost,
            before.files + 1,
            before.nbytes + nbytes,
            failing=False,
        )

    def _complete(self, file: LakeFile, schema: pa.Schema) -> int:
        """Its bytes, once all see it."""
        path = file.finish()
        try:
            self._publish(path, schema, file.rows)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path.stat().st_size

    def _give_up(self, target: _Open, error: Exception) -> None:
        del self._open[target.table, target.date]
        lost = target.all_records
        self._gathered_bytes -= target.nbytes
        if target.file is not None:
            target.file.drop()
        before = self.written
        if not before.failing:
            # once: it will not be better with the next one
            told = error.strerror if isinstance(error, OSError) else None
            why = f"{self._folder}: {told}" if told else str(error)
            log.error("captured requests can't be written, and are lost: %s", why)
        self.written = Written(
            before.records, before.lost + lost, before.files, before.nbytes, failing=True
        )


def _size(row: Row) -> int:
    return ROW_BYTES + sum(0 if each is None else _size_of(each) for each in row.kept)


def _size_of(kept: Kept) -> int:
    return kept.data.nbytes + 8 * len(kept.shape)
