"""Changes of others are seen, at a look, and only then."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.access import tenant_watch
from penstock.access.tenant_records import Usage
from penstock.access.tenants import TenantStore
from penstock.errors import Unavailable

LOOK_S = 0.2


@pytest.fixture
def writer(file: Path) -> Iterator[TenantStore]:
    made = TenantStore(file)
    yield made
    made.close()


def test_changes_of_another_are_seen_at_the_next_look(
    store: TenantStore, writer: TenantStore
) -> None:
    assert not store.refresh(100.0)
    before, generation = store.snapshot, store.generation
    writer.create("a")
    # too early for another look
    assert not store.refresh(100.0 + LOOK_S / 2)
    assert store.snapshot is before
    assert store.refresh(100.0 + LOOK_S)
    assert set(store.snapshot.tenants) == {"a"}
    assert store.generation != generation
    assert not store.refresh(100.0 + 2 * LOOK_S)


def test_changes_of_its_own_are_seen_too(store: TenantStore) -> None:
    store.create("a")
    assert store.refresh(1.0)
    key = store.keys.create("a").key
    assert store.refresh(2.0)
    assert store.snapshot.keys == {key.id: key}


def test_each_kind_of_change_is_seen(store: TenantStore, writer: TenantStore) -> None:
    writer.create("a")
    key = writer.keys.create("a").key
    changes: tuple[Callable[[], object], ...] = (
        lambda: writer.change("a", weight=2),
        lambda: writer.change("a", disabled=True),
        lambda: writer.change("a", models=("x",)),
        lambda: writer.set_limits("a", {"in_flight": 1}),
        lambda: writer.clear_limits("a"),
        lambda: writer.keys.rotate("a", key.id, overlap_s=9),
        lambda: writer.keys.revoke("a", key.id),
        lambda: writer.delete("a"),
    )
    for now, change in enumerate(changes):
        store.refresh(2.0 * now)
        change()
        assert store.refresh(2.0 * now + 1)
        assert store.snapshot == writer.read()


def test_what_only_counts_is_no_change(store: TenantStore, writer: TenantStore) -> None:
    writer.create("a")
    key = writer.keys.create("a").key
    store.refresh(1.0)
    before = store.snapshot
    writer.add_usage([Usage(tenant="a", model="m", day=20_000, requests=1)])
    writer.keys.note_used({key.id: 20_000})
    assert not store.refresh(2.0)
    assert store.snapshot is before
    assert writer.read().keys[key.id].last_used_day == 20_000


def test_a_change_that_was_taken_back_is_none(store: TenantStore, writer: TenantStore) -> None:
    store.refresh(1.0)
    with pytest.raises(RuntimeError), writer._database.change() as connection:
        connection.execute("UPDATE revision SET number = 99")
        raise RuntimeError
    assert not store.refresh(2.0)


def test_a_clock_that_was_set_back_does_not_end_the_looking(
    store: TenantStore, writer: TenantStore
) -> None:
    store.refresh(1e9)
    writer.create("a")
    assert store.refresh(5.0)


def test_changes_of_another_process_are_seen(store: TenantStore, file: Path) -> None:
    store.refresh(1.0)
    program = (
        "import sys, pathlib; from penstock.access.tenants import TenantStore;"
        "TenantStore(pathlib.Path(sys.argv[1])).create('theirs')"
    )
    # it ends without closing the store
    subprocess.run([sys.executable, "-c", program, file], check=True, env=dict(os.environ))
    assert store.refresh(2.0)
    assert set(store.snapshot.tenants) == {"theirs"}


def test_a_writer_at_work_is_not_waited_for(store: TenantStore, writer: TenantStore) -> None:
    store.refresh(1.0)
    with writer._database.change() as connection:
        connection.execute("UPDATE revision SET number = number + 1")
        assert not store.refresh(2.0)
    assert store.refresh(3.0)


def test_another_file_in_its_place_is_followed(
    store: TenantStore, file: Path, tmp_path: Path
) -> None:
    store.create("before")
    store.refresh(1.0)
    (tmp_path / "other").mkdir(mode=0o700)
    other = TenantStore(tmp_path / "other" / "tenants.db")
    other.create("after")
    other.close()
    _put(tmp_path / "other" / "tenants.db", file)
    assert store.refresh(2.0)
    assert set(store.snapshot.tenants) == {"after"}
    assert not store.refresh(3.0)


def test_what_was_known_holds_while_the_file_can_not_be_read(
    store: TenantStore, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.create("a")
    store.refresh(1.0)
    shutil.copy2(file, tmp_path / "copy.db")
    shutil.copy2(file.with_name("tenants.db-wal"), tmp_path / "copy.db-wal")
    (tmp_path / "broken.db").write_bytes(b"nonsense" * 1000)
    before = store.snapshot
    _put(tmp_path / "broken.db", file)
    with caplog.at_level(logging.WARNING):
        assert not store.refresh(2.0)
        assert not store.refresh(3.0)
    assert store.snapshot is before
    (told,) = caplog.messages
    assert told.startswith("tenants can't be read any more, what was known of them holds")
    file.unlink()
    assert not store.refresh(4.0)
    (tmp_path / "copy.db-wal").rename(file.with_name("tenants.db-wal"))
    (tmp_path / "copy.db").rename(file)
    assert store.refresh(5.0)
    assert set(store.snapshot.tenants) == {"a"}
    assert caplog.messages[1:] == [f"{file}: tenants can be read again"]


def _put(source: Path, file: Path) -> None:
    """As who restores a backup does it."""
    for beside in ("-wal", "-shm"):
        file.with_name(file.name + beside).unlink(missing_ok=True)
    source.rename(file)


def test_a_file_that_is_held_for_long_is_told_of(
    store: TenantStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revoked key would go on working, and nobody would know."""

    def held(connection: sqlite3.Connection) -> int:
        raise Unavailable("the disk fails")

    with caplog.at_level(logging.WARNING):
        with monkeypatch.context() as patched:
            patched.setattr(tenant_watch, "_data_version", held)
            for now in (1.0, 2.0, 10.9):
                assert not store.refresh(now)
            assert not caplog.messages
            assert not store.refresh(11.0)
            assert not store.refresh(12.0)
        (told,) = caplog.messages
        assert told.endswith("what was known of them holds: the disk fails")
        store.create("a")
        assert store.refresh(13.0)
    assert caplog.messages[1].endswith("tenants can be read again")


@pytest.mark.parametrize(("took_s", "rests_s"), [(0.001, LOOK_S), (0.1, 0.4), (5.0, 0.8)])
def test_who_changes_a_large_file_all_the_time_does_not_get_the_whole_event_loop(
    store: TenantStore, monkeypatch: pytest.MonkeyPatch, took_s: float, rests_s: float
) -> None:
    store.create("a")
    with monkeypatch.context() as patched:
        clock = iter((100.0, 100.0 + took_s))
        patched.setattr(tenant_watch, "perf_counter", lambda: next(clock))
        assert store.refresh(1.0)
    store.create("b")
    assert not store.refresh(1.0 + rests_s - 0.01)
    assert store.refresh(1.0 + rests_s + 0.01)


def test_looking_at_a_file_that_can_not_be_read_holds_no_descriptors(
    store: TenantStore, file: Path, tmp_path: Path
) -> None:
    """Gateways collect garbage rarely, and look five times a second."""
    store.create("a")
    assert store.refresh(1.0)
    (tmp_path / "broken.db").write_bytes(b"nonsense" * 1000)
    _put(tmp_path / "broken.db", file)
    gc.disable()
    try:
        assert not store.refresh(2.0)
        before = len(os.listdir("/proc/self/fd"))
        for now in range(3, 23):
            assert not store.refresh(float(now))
        assert len(os.listdir("/proc/self/fd")) <= before
    finally:
        gc.enable()
