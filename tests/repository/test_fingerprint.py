"""What a version may have been loaded from, and what it can't."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.repository.fingerprint import fingerprint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two versions, and files that both share."""
    folder = tmp_path / "m"
    for path in ("1/model.py", "1/weights/a.bin", "2/model.py", "config.pbtxt", "text/words.txt"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    return folder


def test_its_own_files_and_shared_ones(model: Path) -> None:
    assert [name for name, _, _ in fingerprint(model, 1)] == [
        b"1/model.py",
        b"1/weights/a.bin",
        b"config.pbtxt",
        b"text/words.txt",
    ]
    stamps = {name: (size, mtime) for name, size, mtime in fingerprint(model, 1)}
    status = (model / "1/model.py").stat()
    assert stamps[b"1/model.py"] == (status.st_size, status.st_mtime_ns)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: (m / "1/model.py").write_text("more than before"),
        lambda m: os.utime(m / "1/weights/a.bin", ns=(1, 1)),
        lambda m: (m / "1/weights/a.bin").unlink(),
        lambda m: (m / "1/new").touch(),
        lambda m: (m / "1/gone").symlink_to("nowhere"),
        lambda m: (m / "config.pbtxt").rename(m / "config.yaml"),
        lambda m: (m / "text/words.txt").write_text("other words"),
        lambda m: (m / "1/link").symlink_to(m / "text"),
    ],
)
def test_changes_are_seen(model: Path, change: Callable[[Path], object]) -> None:
    before = fingerprint(model, 1)
    assert fingerprint(model, 1) == before
    change(model)
    assert fingerprint(model, 1) != before


def test_what_does_not_matter(model: Path) -> None:
    before = fingerprint(model, 1)
    (model / "2/model.py").write_text("something else")
    (model / "3").mkdir()
    (model / "3/model.py").touch()
    (model / "1/__pycache__").mkdir()
    (model / "1/__pycache__/model.pyc").touch()
    os.utime(model / "1/model.py", ns=(1, (model / "1/model.py").stat().st_mtime_ns))
    assert fingerprint(model, 1) == before


def test_links(model: Path, tmp_path: Path) -> None:
    """A version may be a link to its folder, as file stores have it; links to files are followed, loops are not."""
    store = tmp_path / "store"
    (model / "1").rename(store)
    (model / "1").symlink_to(store)
    (store / "up").symlink_to(model)
    before = fingerprint(model, 1)
    assert b"1/model.py" in [name for name, _, _ in before]
    (store / "model.py").write_text("more than before")
    assert fingerprint(model, 1) != before


def test_a_folder_that_is_gone_has_no_files(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "gone", 1) == []
