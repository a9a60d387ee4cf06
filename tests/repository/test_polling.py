"""Which changes of folders count, and when."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.repository.polling import FolderWatch, Looks, look
from repository_bench import write


def watch(**looks: bytes) -> FolderWatch:
    """One that has started with these."""
    started = FolderWatch()
    started.start(looks)
    return started


def told(started: FolderWatch, *looks: Looks) -> list[list[str]]:
    """What it says of each look."""
    return [started.changes(each) for each in looks]


def test_a_change_counts_at_the_second_look() -> None:
    assert told(watch(m=b"1"), {"m": b"2"}, {"m": b"2"}, {"m": b"2"}) == [[], ["m"], []]


def test_a_version_that_no_number_of_the_protocol_can_be(tmp_path: Path) -> None:
    """Another model's changes are still seen."""
    (tmp_path / "m" / str(2**63 - 1)).mkdir(parents=True)
    (tmp_path / "n" / "1").mkdir(parents=True)
    before = look([tmp_path])
    for name in (str(2**63), "9" * 200):
        (tmp_path / "m" / name).mkdir()
    (tmp_path / "n" / "2").mkdir()
    after = look([tmp_path])
    assert after["m"] == before["m"]
    assert after["n"] != before["n"]


def test_what_keeps_changing_is_left_alone() -> None:
    growing = [{"m": bytes([size])} for size in range(2, 9)]
    started = watch(m=b"1")
    assert told(started, *growing) == [[]] * 7
    assert told(started, growing[-1]) == [["m"]]


def test_what_is_as_it_was_before_is_no_change() -> None:
    assert told(watch(m=b"1"), {"m": b"2"}, {"m": b"1"}, {"m": b"1"}) == [[], [], []]


def test_models_that_come_and_go() -> None:
    started = watch(m=b"1", n=b"1")
    assert told(started, {"m": b"1", "x": b"1"}, {"m": b"1", "x": b"1"}) == [[], ["n", "x"]]
    assert told(started, {"m": b"1"}, {"m": b"1", "x": b"1"}) == [[], []]
    assert told(started, {}, {}, {}) == [[], ["m", "x"], []]


@given(st.lists(st.dictionaries(st.sampled_from("mno"), st.sampled_from([b"1", b"2"]))))
def test_the_last_state_that_stays_is_told_once(looks: list[dict[str, bytes]]) -> None:
    """Whatever was seen: two more looks at the same tell the rest, and what was told adds up to it."""
    started = watch(m=b"1")
    known: dict[str, bytes] = {"m": b"1"}
    looks = [*looks, *[looks[-1] if looks else {}] * 2]
    for each in looks:
        for name in started.changes(each):
            assert known.get(name) != each.get(name)
            known.pop(name, None)
            known |= {name: each[name]} if name in each else {}
    assert known == looks[-1]
    assert started.changes(looks[-1]) == []


def _touch(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


CHANGES: dict[str, Callable[[Path], object]] = {
    "new version": lambda m: (m / "2").mkdir(),
    "removed version": lambda m: shutil.rmtree(m / "1"),
    "new file": lambda m: (m / "1" / "weights").touch(),
    "removed file": lambda m: (m / "1" / "model.py").unlink(),
    "grown file": lambda m: (m / "1" / "model.py").write_text("more"),
    "rewritten file": lambda m: _touch(m / "1" / "model.py"),
    "new configuration": lambda m: (m / "config.pbtxt").touch(),
    "shared file": lambda m: (m / "labels.txt").touch(),
    "deep file": lambda m: write(m / "1" / "a" / "b", "c"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_look_sees(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = write(tmp_path / "m", 1)
    write(tmp_path / "n", 1)
    before = look([tmp_path])
    assert look([tmp_path]) == before
    change(folder)
    after = look([tmp_path])
    assert after["m"] != before["m"]
    assert after["n"] == before["n"]


def test_what_a_look_does_not_see(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", 1)
    before = look([tmp_path])
    write(folder / "1" / "__pycache__", "x")
    write(tmp_path / ".hidden", 1)
    (tmp_path / "notes.txt").touch()
    assert look([tmp_path]) == before


def test_a_version_that_is_a_link(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "a")
    folder = write(tmp_path / "models" / "m", 1)
    (folder / "2").symlink_to(tmp_path / "elsewhere" / "a")
    before = look([tmp_path / "models"])
    (tmp_path / "elsewhere" / "a" / "model.py").write_text("changed in its place")
    assert look([tmp_path / "models"]) != before


def test_the_same_name_in_another_repository_is_a_change(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    write(tmp_path / "a" / "m", 1)
    before = look([tmp_path / "a", tmp_path / "b"])
    write(tmp_path / "b" / "m", 1)
    assert look([tmp_path / "a", tmp_path / "b"])["m"] != before["m"]


def test_a_repository_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        look([tmp_path / "gone"])
