"""Follows the file of tenants: whether it was changed, and what is in it then."""

from __future__ import annotations

import logging
import math
import sqlite3
from pathlib import Path
from time import perf_counter
from typing import Final

from penstock.access.tenant_database import BUSY_TIMEOUT_S, connect, identity, translated
from penstock.access.tenant_records import TenantSnapshot
from penstock.access.tenant_rows import read_revision, read_snapshot
from penstock.errors import PenstockError, Unavailable

LOOK_S: Final = 0.2
"""From one look to the next. A look takes microseconds: SQLite compares a number in shared memory."""
REST: Final = 4.0
"""So many times as long as reading took, nothing is read: whoever changes a large file all the time gets a fifth of the
event loop, and not all of it …"""
LONGEST_REST_S: Final = 0.8
"""… but changes are effective within a second."""
PATIENCE_S: Final = 10.0
"""A file that others hold for so long is told of: nobody's change takes that long."""

logger = logging.getLogger(__name__)


class TenantWatch:
    """One connection, which only reads. Not for several threads at a time."""

    def __init__(self, path: Path) -> None:
        """The file is there, with its tables. Raises ConfigError, Unavailable."""
        self._path = path
        self._looked_at = -math.inf
        self._rest_s = LOOK_S
        self._held_since: float | None = None
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
        """Look for changes, at most every 200 ms, later after much was read; whether there is a new snapshot.

        When the file can't be read, what was known of it holds on, and the log says so.
        """
        # a clock that was set back must not end the looking
        if 0 <= now - self._looked_at < self._rest_s:
            return False
        self._looked_at, self._rest_s = now, LOOK_S
        try:
            with translated(self._path):
                changed = self._look()
        except Unavailable as error:
            self._held(error, now)
            return False
        except PenstockError as error:
            self._tell(error)
            return False
        self._held_since = None
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
            began = perf_counter()
            self._take(_read(self._connection))
            took_s = perf_counter() - began
            self._rest_s = min(max(LOOK_S, REST * took_s), LONGEST_REST_S)
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

    def _held(self, error: Unavailable, now: float) -> None:
        """Some other process holds all of it, or the disk fails. The next look comes soon, and mostly that is all."""
        logger.debug("%s", error)
        if self._held_since is None or now < self._held_since:
            self._held_since = now
        if now - self._held_since >= PATIENCE_S:
            self._tell(error)

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
