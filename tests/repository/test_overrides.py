"""What load requests give: which names of files are paths inside a model's folder, and how long it all is kept."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from penstock.errors import InvalidRequest, Unavailable
from penstock.repository.overrides import (
    MAX_DEPTH,
    MAX_FILES,
    Override,
    Overrides,
    check_files,
    check_model_name,
)

FILES = {"file:1/model.py": b"code", "file:labels.txt": b"a\nb\n", "file:1/deep/er": b""}
GIVEN = Override('{"backend": "python"}', FILES)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("file:", "it is empty"),
        ("file:/etc/passwd", "it is an absolute path"),
        ("file:/", "it is an absolute path"),
        ("file:..", "it has a part '..'"),
        ("file:../x", "it has a part '..'"),
        ("file:1/../../x", "it has a part '..'"),
        ("file:1/..", "it has a part '..'"),
        ("file:./x", "it has a part '.'"),
        ("file:1//x", "it has a part ''"),
        ("file:1/", "it has a part ''"),
        ("file:1/a\0b", "it has a NUL character"),
        ("file:1/\ud800", "it is not UTF-8"),
        ("file:1/" + "x" * 256, "a part is over 255 bytes long"),
        ("file:1/" + "ä" * 128, "a part is over 255 bytes long"),
        ("file:" + "d/" * MAX_DEPTH + "x", f"it is deeper than {MAX_DEPTH} levels"),
    ],
)
def test_names_that_are_no_paths_inside(name: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_files(["file:1/model.py", name])
    assert f": {problem}; expected a path that stays within the model's directory" in str(
        raised.value
    )
    assert str(raised.value).isprintable()


def test_a_name_that_is_file_and_folder() -> None:
    with pytest.raises(InvalidRequest, match="'file:1/a', directory has been created as a file"):
        check_files(["file:1/a", "file:1/a/b"])


def test_too_many_files() -> None:
    check_files(f"file:1/{number}" for number in range(MAX_FILES))
    with pytest.raises(InvalidRequest, match="over 10000 files"):
        check_files(f"file:1/{number}" for number in range(MAX_FILES + 1))


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".git", "__m", "a/b", "/", "a\0b", "\ud800", "x" * 256]
)
def test_names_that_no_model_can_have(name: str) -> None:
    with pytest.raises(InvalidRequest, match="can't be a model's name: "):
        check_model_name(name)


def test_what_is_kept(tmp_path: Path) -> None:
    kept = Overrides(tmp_path).keep("m", GIVEN)
    assert kept.model_dir is not None and kept.model_dir.name == "m"
    assert content(kept.model_dir) == {
        "1/model.py": b"code",
        "labels.txt": b"a\nb\n",
        "1/deep/er": b"",
    }
    for path in kept.root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE((tmp_path / "overrides").stat().st_mode) & 0o077 == 0


def test_a_configuration_alone_has_no_folder(tmp_path: Path) -> None:
    assert Overrides(tmp_path).keep("m", Override("{}")).model_dir is None


def test_the_next_gateway_finds_what_was_in_force(tmp_path: Path) -> None:
    overrides = Overrides(tmp_path)
    served = overrides.keep("m", GIVEN)
    overrides.put_in_force(served)
    config_only = overrides.keep("n", Override("{}"))
    overrides.put_in_force(config_only)
    overrides.keep("m", GIVEN)
    gone = overrides.keep("o", GIVEN)
    overrides.put_in_force(gone)
    overrides.withdraw(gone)
    after = Overrides(tmp_path)
    assert after.inherit() == {"m": served, "n": config_only}
    assert len(list((tmp_path / "overrides").iterdir())) == 2
    newer = after.keep("m", GIVEN)
    assert newer.root not in (served.root, config_only.root)
    after.put_in_force(newer)
    assert Overrides(tmp_path).inherit() == {"m": newer, "n": config_only}
    assert not served.root.exists()


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "overrides" / "7" / "model").mkdir(parents=True)
    overrides = Overrides(tmp_path)
    assert overrides.inherit() == {}
    assert list((tmp_path / "overrides").iterdir()) == []
    assert overrides.keep("m", GIVEN).root.name == "8"


def test_removing(tmp_path: Path) -> None:
    overrides = Overrides(tmp_path)
    kept = overrides.keep("m", GIVEN)
    overrides.remove(kept)
    assert not kept.root.exists()
    assert Overrides(tmp_path / "nowhere").inherit() == {}


def test_what_can_not_be_kept_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no folder of its own"):
        Overrides(None).keep("m", GIVEN)
    (tmp_path / "overrides").touch()
    with pytest.raises(Unavailable, match="what was given of 'm' can't be kept: File exists"):
        Overrides(tmp_path).keep("m", GIVEN)


def test_what_is_kept_needs_no_more_room_to_be_in_force(tmp_path: Path) -> None:
    """A disk that is full by then does not matter."""
    overrides = Overrides(tmp_path)
    kept = overrides.keep("m", GIVEN)
    before = {path.stat().st_ino for path in kept.root.rglob("*")}
    overrides.put_in_force(kept)
    overrides.put_in_force(kept)
    assert Overrides(tmp_path).inherit() == {"m": kept}
    overrides.withdraw(kept)
    overrides.withdraw(kept)
    overrides.put_in_force(kept)
    assert {path.stat().st_ino for path in kept.root.rglob("*")} == before


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
