"""The file of tenants: SQLite in WAL mode, so that the server reads while the command line writes."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from penstock.access.tenant_schema import APPLICATION_ID, MIGRATIONS, VERSION
from penstock.errors import ConfigError, PenstockError, Unavailable

SETTING: Final = "access.tenants_file"
"""What says where the file is."""
BUSY_TIMEOUT_S: Final = 5.0
"""How long a writer waits for another one. A reader waits for nobody."""


class TenantDatabase:
    """One connection that writes, for any thread in turn. `look` opens another one that only reads."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Raises ConfigError for a file that can't be used, Unavailable for one that others hold."""
        self.path: Final = path
        self._lock = threading.Lock()
        if create:
            _make_file(path)
        _check_file(path)
        with translated(path):
            self._connection, self._identity = _opened(path)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; durable when it ends."""
        with self._lock, translated(self.path):
            connection = self._current()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """A transaction after which the servers that look at this file read it anew."""
        with self.transaction() as connection:
            yield connection
            connection.execute("UPDATE revision SET number = number + 1")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """What is read in here is of one moment."""
        with self._lock, translated(self.path):
            connection = self._current()
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                _roll_back(connection)

    def close(self) -> None:
        """What is committed stays."""
        with self._lock:
            self._connection.close()

    def _current(self) -> sqlite3.Connection:
        """A file that was put in the place of this one, such as a backup, is the one to be written."""
        if identity(self.path) != self._identity:
            _check_file(self.path)
            connection, self._identity = _opened(self.path)
            self._connection.close()
            self._connection = connection
        return self._connection


def identity(path: Path) -> tuple[int, int]:
    """Tells the file from another one of its name; (0, 0) when there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection to a file that is there, for any thread. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        # each change is on the disk before anybody is told that it was made
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        # who is refused may not see to it before long: its descriptors would add up
        connection.close()
        raise
    return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, with the file's name."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(path, error) from error


def _translate(path: Path, error: sqlite3.Error) -> PenstockError:
    # the low byte is the kind, the rest says more of it
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable(f"{path}: another process is writing it, try again: {error}")
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return ConfigError(
                f"{path}: not a file of tenants, or a damaged one ({error}):"
                " restore it from a backup, or name another one as tenants_file of [access]"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return ConfigError(
                f"{path}: can't be read and written ({error}):"
                " the file and its folder must be this user's"
            )
        case sqlite3.SQLITE_FULL:
            return Unavailable(f"{path}: no room left on the disk")
        case sqlite3.SQLITE_IOERR:
            return Unavailable(f"{path}: the disk fails: {error}")
    return ConfigError(f"{path}: {error}")


def _make_file(path: Path) -> None:
    """Only this user may read it, from its first moment on; what is there already is left as it is."""
    if path.exists():
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # one that is there is not opened: closing it would end the locks that this process has on it
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(
            f"{SETTING}: {path}: can't be made or written: {error.strerror}"
        ) from error


def _check_file(path: Path) -> None:
    """Whoever can write this file can let anybody in."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ConfigError(
            f"{SETTING}: {path}: there is no such file yet; `penstock tenants create NAME` makes it"
        ) from None
    except OSError as error:
        raise ConfigError(f"{SETTING}: {path}: can't be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{SETTING}: {path}: expected a file of tenants, and this is no file")
    if found.st_mode & 0o007:
        raise ConfigError(
            f"{SETTING}: {path}: every user of this machine can reach it (mode {stat.S_IMODE(found.st_mode):o}):"
            f" chmod 600 {path}"
        )


def _opened(path: Path) -> tuple[sqlite3.Connection, tuple[int, int]]:
    """With all tables in it, and which file it is."""
    which = identity(path)
    connection = connect(path, BUSY_TIMEOUT_S)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection, which


def _roll_back(connection: sqlite3.Connection) -> None:
    # some errors have ended the transaction already
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or bring them up to date. Raises ConfigError for a file of something else, or a later one."""
    if _version(connection, path) == VERSION:
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        # another process may have been quicker
        for statements in MIGRATIONS[_version(connection, path) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Of the tables; 0: there are none yet."""
    owner, version, objects = (
        int(connection.execute(query).fetchone()[0])
        for query in (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_schema",
        )
    )
    if owner != APPLICATION_ID and (owner or version or objects):
        raise ConfigError(f"{path}: a database of something else, expected a file of tenants")
    if version > VERSION:
        raise ConfigError(
            f"{path}: made by a later Penstock (its tables have version {version}, this one knows"
            f" {VERSION}): use that Penstock, or another tenants_file"
        )
    return version
