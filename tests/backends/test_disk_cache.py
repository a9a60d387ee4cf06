"""What is kept on disk between loads: whole, private, bounded, and never needed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.backends import disk_cache
from penstock.trust.staging import Staging, Verified

KIND = "engines"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the cache lies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path


def test_an_entry_is_found_again_and_lies_in_a_private_folder(home: Path) -> None:
    key = disk_cache.key_of("model", 10, b"\0")
    path = disk_cache.put(KIND, key, b"plan")
    assert path is not None and path.parent == home / "penstock" / KIND
    assert disk_cache.get(KIND, key) == b"plan"
    assert disk_cache.find(KIND, key) == path
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert disk_cache.get("other", key) is None


def test_keys_tell_parts_apart() -> None:
    keys = {
        disk_cache.key_of(*parts)
        for parts in [("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"), ("", "ab"), ()]
    }
    assert len(keys) == 6


def test_a_damaged_entry_is_removed_and_made_again(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = disk_cache.put(KIND, "key", b"plan")
    assert path is not None
    path.write_bytes(b"pla")
    assert disk_cache.get(KIND, "key") is None
    assert not path.exists()
    assert "damaged" in caplog.text
    disk_cache.put(KIND, "key", b"plan")
    assert disk_cache.get(KIND, "key") == b"plan"


def test_an_entry_that_others_can_write_is_not_trusted() -> None:
    path = disk_cache.put(KIND, "key", b"plan")
    assert path is not None
    path.chmod(0o666)
    assert disk_cache.get(KIND, "key") is None


def test_a_link_is_not_trusted(home: Path) -> None:
    path = disk_cache.put(KIND, "key", b"plan")
    assert path is not None
    path.rename(home / "elsewhere")
    path.symlink_to(home / "elsewhere")
    assert disk_cache.get(KIND, "key") is None


def test_many_writers_of_one_entry_leave_one_whole_entry(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: disk_cache.put(KIND, "key", b"x" * 100_000), range(32)))
    assert set(paths) == {disk_cache.find(KIND, "key")}
    assert len(list((home / "penstock" / KIND).iterdir())) == 1


def test_a_writer_that_fails_leaves_nothing(home: Path) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        disk_cache.make(KIND, "key", write)
    assert list((home / "penstock" / KIND).iterdir()) == []


def test_what_was_used_longest_ago_makes_room(home: Path) -> None:
    for age, key in enumerate(("new", "middle", "old")):
        path = disk_cache.put(KIND, key, b"x" * 10)
        assert path is not None
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    assert disk_cache.get(KIND, "old") is not None  # it was used just now
    disk_cache.put(KIND, "another", b"x" * 10, limit_bytes=30)
    found = {key: disk_cache.get(KIND, key) is not None for key in ("new", "middle", "old")}
    assert found == {"new": True, "middle": False, "old": True}


def test_an_entry_above_the_limit_is_kept_alone() -> None:
    disk_cache.put(KIND, "small", b"x")
    disk_cache.put(KIND, "big", b"x" * 100, limit_bytes=10)
    assert disk_cache.get(KIND, "small") is None
    assert disk_cache.get(KIND, "big") is not None


@pytest.mark.parametrize("obstacle", ["a file", "others can write it", "a link"])
def test_a_place_that_is_not_ours_is_left_for_a_temporary_one(home: Path, obstacle: str) -> None:
    place = home / "penstock"
    if obstacle == "a file":
        place.write_bytes(b"")
    elif obstacle == "a link":
        (home / "real").mkdir()
        place.symlink_to(home / "real")
    else:
        place.mkdir()
        place.chmod(0o777)
    assert_works_in_a_temporary_folder({"XDG_CACHE_HOME": str(home)}, home, "1 warning")


def test_without_a_home_there_is_a_temporary_folder(home: Path) -> None:
    (home / "file").write_bytes(b"")
    assert_works_in_a_temporary_folder({"HOME": str(home / "file" / "x")}, home, "1 warning")


@pytest.mark.parametrize(("blocks", "names"), [(3, 1000), (1 << 20, 0)])
def test_a_full_disk_is_left_for_a_temporary_folder(home: Path, blocks: int, names: int) -> None:
    """Of bytes, or of names for files."""
    found = f"f_bavail={blocks}, f_frsize=4096, f_files=10_000, f_favail={names}"
    full = f"""
import os, types
os.statvfs = lambda path: types.SimpleNamespace({found})
"""
    environment = {"XDG_CACHE_HOME": str(home)}
    assert_works_in_a_temporary_folder(environment, home, "1 warning", full)
    assert list((home / "penstock" / "kind").iterdir()) == []


def test_a_relative_cache_home_does_not_count(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(home))
    assert disk_cache.folder(KIND) == home / ".cache" / "penstock" / KIND


PROGRAM = """
import logging
from penstock.backends import disk_cache
warnings = []
handler = logging.Handler()
handler.emit = warnings.append
logging.getLogger().addHandler(handler)
for key in ("a", "b"):
    disk_cache.put("kind", key, b"x")
    assert disk_cache.get("kind", key) == b"x"
assert disk_cache.folder("kind").stat().st_mode & 0o777 == 0o700
print(disk_cache.folder("kind"), len(warnings), "warning")
"""


def assert_works_in_a_temporary_folder(
    environment: dict[str, str], temporary: Path, expected: str, first: str = ""
) -> None:
    (temporary / "tmp").mkdir()
    environment |= {"TMPDIR": str(temporary / "tmp")}
    ran = subprocess.run(
        [sys.executable, "-c", first + PROGRAM], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    path, _, told = ran.stdout.strip().partition(" ")
    assert told == expected
    assert path.startswith(str(temporary / "tmp" / "penstock-cache-"))
    assert list((temporary / "tmp").iterdir()) == []  # gone with its process


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_copy_of_decrypted_files_is_known(tmp_path: Path, encrypted: bool) -> None:
    draft = Staging(tmp_path / "plain", tmp_path / "memory").draft("m", in_memory=encrypted)
    verified = Verified(model="m", version=1, key=b"", encrypted=encrypted)
    staged = draft.finish(verified)
    assert disk_cache.holds_secrets(staged.model_dir) is encrypted
    (staged.root / "staged.json").write_bytes(b"{")
    assert disk_cache.holds_secrets(staged.model_dir)  # it can't tell


def test_a_model_where_it_was_put_holds_no_secrets(tmp_path: Path) -> None:
    assert not disk_cache.holds_secrets(tmp_path / "models" / "m")


def test_what_can_not_be_kept_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk_cache._tell_failed.cache_clear()
    for key in ("a", "b", "c"):
        assert disk_cache.make("full", key, full) is None
    told = "the cache of full keeps nothing: [Errno 28] No space left on device"
    assert caplog.messages == [told]


def test_an_entry_is_kept_where_no_room_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(disk_cache, "_make_room", fails)
    assert disk_cache.put(KIND, "key", b"plan") is not None
    assert disk_cache.get(KIND, "key") == b"plan"
