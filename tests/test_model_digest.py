"""The digest that a version is known by."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from penstock.model_digest import digest_of, file_digests, folder_digest


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "digits" / "3"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "inner" / "labels.txt").write_text("zero\none\n")
    return folder


def test_digest_is_written_down(version: Path) -> None:
    """Others compute it too: it may never change."""
    lines = b"".join(
        path + b"\0" + hashlib.sha256(content).hexdigest().encode() + b"\n"
        for path, content in ((b"inner/labels.txt", b"zero\none\n"), (b"model.onnx", b"weights"))
    )
    expected = "sha256:" + hashlib.sha256(lines).hexdigest()
    assert folder_digest(version) == expected
    assert folder_digest(str(version)) == expected
    assert digest_of(file_digests(version)) == expected


def test_signature_and_bytecode_do_not_count(version: Path) -> None:
    before = folder_digest(version)
    (version / "model.sig").write_text("{}")
    (version / "release.json").write_text("{}")
    (version / "inner" / "__pycache__").mkdir()
    (version / "inner" / "__pycache__" / "x.pyc").write_bytes(b"code")
    (version / "nowhere").symlink_to("not there")
    os.mkfifo(version / "pipe")
    assert folder_digest(version) == before


def test_every_other_byte_counts(version: Path) -> None:
    seen = {folder_digest(version)}
    (version / "model.onnx").write_bytes(b"weightz")
    seen.add(folder_digest(version))
    (version / "model.onnx").rename(version / "model2.onnx")
    seen.add(folder_digest(version))
    (version / "inner" / "model.sig").write_text("a model's own file of that name")
    seen.add(folder_digest(version))
    (version / "empty").touch()
    seen.add(folder_digest(version))
    assert len(seen) == 5


def test_links_count_as_what_they_lead_to(version: Path, tmp_path: Path) -> None:
    before = folder_digest(version)
    blob = tmp_path / "blob"
    (version / "model.onnx").rename(blob)
    (version / "model.onnx").symlink_to(blob)
    (version / "inner").rename(tmp_path / "elsewhere")
    (version / "inner").symlink_to(tmp_path / "elsewhere")
    assert folder_digest(version) == before


def test_loop_of_links_ends(version: Path) -> None:
    before = folder_digest(version)
    (version / "inner" / "again").symlink_to(version)
    assert folder_digest(version) == before


def test_names_may_be_any_bytes(version: Path) -> None:
    (Path(os.fsdecode(os.fsencode(version) + b"/\xff\xfe"))).write_bytes(b"x")
    assert b"\xff\xfe" in [os.fsencode(path) for path in file_digests(version)]
    assert folder_digest(version).startswith("sha256:")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        folder_digest(tmp_path / "not there")


def test_no_files(tmp_path: Path) -> None:
    assert folder_digest(tmp_path) == "sha256:" + hashlib.sha256().hexdigest()
