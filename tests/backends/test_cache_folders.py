"""Folders of the disk cache, in which libraries write as they like: bounded, and never removed under who uses them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from descriptors import open_descriptors
from model_files import load_spec, write_onnx_identity
from penstock.backends import disk_cache, onnxruntime_backend
from penstock.backends.cache_folders import CacheFolder, folder_of, open_folder

KIND = "engines"
LIMIT = 1000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the cache lies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = open_descriptors()
    yield tmp_path
    assert open_descriptors() == before


def used(key: str, nbytes: int = 0, age_s: float = 0) -> None:
    """Have a library use the folder, so long ago."""
    with closing(open_folder(folder_of(KIND, key), LIMIT)) as entry:
        write(entry, nbytes)
        at = (entry.path / ".lock").stat().st_mtime - age_s
        os.utime(entry.path / ".lock", (at, at))


def write(entry: CacheFolder, nbytes: int) -> None:
    if nbytes:
        (entry.path / "subgraph").mkdir(exist_ok=True)
        (entry.path / "subgraph" / "a_sm90.engine").write_bytes(bytes(nbytes))


def there() -> set[str]:
    return {path.name for path in disk_cache.folder(KIND).iterdir()}


def test_on_a_full_disk_what_is_there_is_used(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used("key", 10)
    used("empty")
    monkeypatch.setattr(disk_cache, "LEAST_ROOM_BYTES", 1 << 62)
    monkeypatch.setattr(disk_cache, "_temporary", cache(lambda: tmp_path / "temporary"))
    assert folder_of(KIND, "key") == home / "penstock" / KIND / "key"
    assert folder_of(KIND, "empty") == tmp_path / "temporary" / KIND / "empty"


def test_it_is_private_and_found_again(home: Path) -> None:
    used("key", 10)
    with closing(open_folder(folder_of(KIND, "key"))) as entry:
        assert entry.path == home / "penstock" / KIND / "key"
        assert entry.path.stat().st_mode & 0o777 == 0o700
        assert (entry.path / "subgraph" / "a_sm90.engine").stat().st_size == 10


def test_what_was_used_longest_ago_makes_room() -> None:
    used("oldest", 400, age_s=300)
    used("older", 400, age_s=200)
    used("newer", 100, age_s=100)
    with closing(open_folder(folder_of(KIND, "own"), LIMIT)) as entry:
        assert there() == {"oldest", "older", "newer", "own"}
        write(entry, 600)
        entry.make_room()
        assert there() == {"newer", "own"}


def test_what_is_used_again_is_the_newest() -> None:
    used("a", 600, age_s=300)
    used("b", 300, age_s=200)
    used("a")
    used("own", 300)
    assert there() == {"a", "own"}


def test_a_folder_that_alone_is_too_large_stays() -> None:
    used("own", 2 * LIMIT)
    assert there() == {"own"}
    used("next", 1)
    assert there() == {"next"}


def test_what_another_process_uses_stays_until_that_ends(home: Path) -> None:
    script = (
        "import sys; from penstock.backends.cache_folders import folder_of, open_folder\n"
        f"entry = open_folder(folder_of({KIND!r}, 'theirs')); print(flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(home)}
    other = subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline()
        used("own", 2 * LIMIT)
        assert there() == {"theirs", "own"}
        other.kill()
    used("own")
    assert there() == {"own"}


def test_who_comes_while_it_is_removed_gets_a_new_one() -> None:
    def use(number: int) -> None:
        for _ in range(20):
            with closing(open_folder(folder_of(KIND, f"{number % 3}"), 0)) as entry:
                write(entry, 10)
                assert (entry.path / "subgraph").is_dir()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(use, range(6)))
    open_folder(folder_of(KIND, "last"), 0).close()
    assert there() == {"last"}


def test_what_a_killed_process_was_removing_goes() -> None:
    (disk_cache.folder(KIND) / ".gone-x" / "key").mkdir(parents=True)
    used("own")
    assert there() == {"own"}


def test_without_tensorrt_onnx_runtime_gets_none(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", ["batch", 2])
    accelerator = {"gpu_execution_accelerator": [{"name": "tensorrt"}]}
    config: dict[str, Any] = {"optimization": {"execution_accelerators": accelerator}}
    spec = replace(load_spec(model_dir, config), device="cuda:0")
    onnxruntime_backend.load(spec).close()
    assert not list(disk_cache.folder(onnxruntime_backend.ENGINES).iterdir())
