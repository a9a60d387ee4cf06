"""Follows the file of tenants: whether it was changed, and what is in it then."""

from __future__ import annotations

import logging
import math
import sqlite3
from pathlib import Path
from typing import Final

from penstock.access.tenant_database import BUSY_TIMEOUT_S, connect, identity, translated
from penstock.access.tenant_records import TenantSnapshot
from penstock.access.tenant_rows import read_revision, read_snapshot
from penstock.errors import PenstockError, Unavailable

LOOK_S: Final = 0.2
"""From one look to the next. A look takes microseconds: SQLite compares a number in shared memory."""

logger = logging.getLogger(__name__)


class TenantWatch:
    """One connection, which only reads. Not for several threads at a time."""

    def __init__(self, path: Path) -> None:
        """The file is there, with its tables. Raises ConfigError, Unavailable."""
        self._path = path
        self._looked_at = -math.inf
        self._failing = False
        self.generation = 1
        with translated(path):
            self._identity = identity(path)
            self._connection = _connect(path)
            try:
                self._version = _data_version(self._connection)
                self.snapshot = _read(self._connection)
            except BaseException:
                self._connection.close()
                raise

    def refresh(self, now: float) -> bool:
        """Look for changes, at most every 200 ms; whether there is a new snapshot.

        When the file can't be read, what was known of it holds on, and the log says so.
        """
        # a clock that was set back must not end the looking
        if 0 <= now - self._looked_at < LOOK_S:
            return False
        self._looked_at = now
        try:
            with translated(self._path):
                changed = self._look()
        except Unavailable as error:
            # some other process holds all of it: the next look comes soon
            logger.debug("%s", error)
            return False
        except PenstockError as error:
            self._tell(error)
            return False
        self._tell(None)
        return changed

    def close(self) -> None:
        """The last snapshot stays."""
        self._connection.close()

    def _look(self) -> bool:
        which = identity(self._path)
        if which != self._identity:
            return self._follow(which)
        version = _data_version(self._connection)
        if version == self._version:
            return False
        changed = read_revision(self._connection) != self.snapshot.revision
        if changed:
            self._take(_read(self._connection))
        self._version = version
        return changed

    def _follow(self, which: tuple[int, int]) -> bool:
        """Another file has been put in the place of the one that is open."""
        connection = _connect(self._path)
        try:
            version, snapshot = _data_version(connection), _read(connection)
        except BaseException:
            connection.close()
            raise
        self._connection.close()
        self._connection, self._identity, self._version = connection, which, version
        self._take(snapshot)
        return True

    def _take(self, snapshot: TenantSnapshot) -> None:
        self.snapshot = snapshot
        self.generation += 1

    def _tell(self, error: PenstockError | None) -> None:
        """Once when it begins, and once when it is over."""
        if error is not None and not self._failing:
            logger.error("tenants can't be read any more, what was known of them holds: %s", error)
        if error is None and self._failing:
            logger.warning("%s: tenants can be read again", self._path)
        self._failing = error is not None


def _connect(path: Path) -> sqlite3.Connection:
    connection = connect(path, BUSY_TIMEOUT_S)
    connection.execute("PRAGMA query_only = ON")
    # from now on the event loop waits for nobody
    connection.execute("PRAGMA busy_timeout = 0")
    return connection


def _data_version(connection: sqlite3.Connection) -> int:
    """Another number after each commit of other connections."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _read(connection: sqlite3.Connection) -> TenantSnapshot:
    connection.execute("BEGIN")
    try:
        return read_snapshot(connection)
    finally:
        connection.execute("ROLLBACK")
