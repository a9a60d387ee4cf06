"""The file itself: who may read it, what it may be, and what is said when it can't be used."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from penstock.access import tenant_database
from penstock.access.tenant_database import TenantDatabase
from penstock.access.tenant_schema import MIGRATIONS, VERSION
from penstock.access.tenants import TenantStore
from penstock.errors import ConfigError, Unavailable


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_its_owner_can_read_it(file: Path) -> None:
    before = os.umask(0)
    try:
        with closing(TenantStore(file)) as store:
            store.create("a")
            # while it is open SQLite has two files beside it
            assert len(list(file.parent.iterdir())) == 3
            assert {mode(path) for path in file.parent.iterdir()} == {0o600}
    finally:
        os.umask(before)
    assert mode(file.parent) == 0o700


def test_a_file_that_everybody_reaches_is_refused(file: Path) -> None:
    TenantStore(file).close()
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"every user .* can reach it \(mode 644\): chmod 600"):
        TenantStore(file)
    file.chmod(0o660)
    TenantStore(file).close()


def test_what_is_there_stays(file: Path) -> None:
    with closing(TenantStore(file)) as store:
        store.create("a")
    with closing(TenantStore(file, create=False)) as store:
        assert set(store.snapshot.tenants) == {"a"}


def test_a_missing_file_is_made_only_where_that_is_meant(file: Path) -> None:
    with pytest.raises(ConfigError, match="no such file yet; `penstock tenants create NAME` makes"):
        TenantStore(file, create=False)
    assert not file.parent.exists()


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("no database at all, but long enough to be taken for the header of one\n" * 20)
    text.chmod(0o600)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE songs (title)")
        connection.commit()
    other.chmod(0o600)
    for path, expected in (
        (text, "text.db: not a file of tenants, or a damaged one"),
        (other, "other.db: a database of something else, expected a file of tenants"),
        (tmp_path, "expected a file of tenants, and this is no file"),
    ):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(ConfigError, match=expected):
            TenantStore(path)
        assert not path.is_file() or path.read_bytes() == before


def test_a_later_version_is_refused_by_name(file: Path) -> None:
    TenantStore(file).close()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    expected = f"made by a later Penstock .*version {VERSION + 1}, this one knows {VERSION}"
    with pytest.raises(ConfigError, match=expected):
        TenantStore(file)


def test_an_earlier_version_is_brought_up_to_date(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(TenantStore(file)) as store:
        store.create("a")
    added = ("ALTER TABLE tenants ADD COLUMN motto TEXT",)
    monkeypatch.setattr(tenant_database, "MIGRATIONS", (*MIGRATIONS, added))
    monkeypatch.setattr(tenant_database, "VERSION", VERSION + 1)
    with closing(TenantStore(file)) as store:
        assert set(store.read().tenants) == {"a"}
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT motto FROM tenants").fetchall() == [(None,)]


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TenantStore(file).close()
    added = ("ALTER TABLE tenants ADD COLUMN motto TEXT", "SELECT nonsense")
    with monkeypatch.context() as patch:
        patch.setattr(tenant_database, "MIGRATIONS", (*MIGRATIONS, added))
        patch.setattr(tenant_database, "VERSION", VERSION + 1)
        with pytest.raises(ConfigError, match=r"tenants\.db: no such column: nonsense"):
            TenantStore(file)
    with closing(TenantStore(file)) as store:
        store.create("a")


def test_a_damaged_file_is_told(file: Path) -> None:
    with closing(TenantStore(file)) as store:
        for number in range(200):
            store.create(f"t{number}")
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    file.write_bytes(data)
    with pytest.raises(ConfigError, match="not a file of tenants, or a damaged one"):
        TenantStore(file)


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"^access\.tenants_file: .*tenants\.db: can't be made or written"
    ):
        TenantStore(tmp_path / "file" / "tenants.db")


def test_a_writer_that_waits_too_long_is_told_to_try_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_database, "BUSY_TIMEOUT_S", 0)
    with closing(TenantStore(file)) as one, closing(TenantStore(file)) as other:
        with one._database.transaction():
            with pytest.raises(Unavailable, match="another process is writing it, try again"):
                other.create("a")
            # readers wait for nobody
            assert other.read().tenants == {}
        other.create("a")


def test_a_backup_that_is_put_in_place_is_what_is_changed(file: Path, tmp_path: Path) -> None:
    with closing(TenantDatabase(file, create=True)):
        pass
    shutil.copy2(file, tmp_path / "backup.db")
    with closing(TenantStore(file)) as store:
        store.create("lost")
        for beside in ("tenants.db-wal", "tenants.db-shm"):
            (file.parent / beside).unlink()
        (tmp_path / "backup.db").rename(file)
        store.create("kept")
        assert set(store.read().tenants) == {"kept"}
