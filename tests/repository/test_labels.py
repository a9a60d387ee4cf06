"""Label files."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.repository.labels import read_labels


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (b"", ()),
        (b"cat\ndog\n", ("cat", "dog")),
        (b"cat\r\ndog", ("cat", "dog")),
        (b"cat\n\n dog \n", ("cat", "", " dog ")),
        ("Käse\u2028x\n".encode(), ("Käse\u2028x",)),
    ],
)
def test_one_label_a_line(tmp_path: Path, content: bytes, labels: tuple[str, ...]) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_labels(tmp_path, "labels.txt") == labels


def test_files_in_folders_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "labels.txt").write_text("a")
    assert read_labels(tmp_path, "1/labels.txt") == ("a",)


@pytest.mark.parametrize("filename", ["../labels.txt", "/etc/passwd", "link"])
def test_files_outside_are_refused(tmp_path: Path, filename: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "labels.txt").write_text("a")
    (model / "link").symlink_to(tmp_path / "labels.txt")
    with pytest.raises(ConfigError, match="is outside the model's folder"):
        read_labels(model, filename)


@pytest.mark.parametrize("filename", ["labels.txt", "."])
def test_what_is_no_file(tmp_path: Path, filename: str) -> None:
    with pytest.raises(ConfigError, match="is not in the model's folder"):
        read_labels(tmp_path, filename)


@pytest.mark.parametrize("filename", ["a\0b", "a" * 5000])
def test_names_that_no_file_has(tmp_path: Path, filename: str) -> None:
    with pytest.raises(ConfigError):
        read_labels(tmp_path, filename)


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(ConfigError, match=r"labels\.txt:2: not UTF-8; expected one label a line"):
        read_labels(tmp_path, "labels.txt")
