"""Secrets in files: who may read them, and what of them is the secret."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.secrets.files import MAX_BYTES, SecretFiles


def write(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"hunter2\n", b"hunter2"),
        (b"hunter2\r\n", b"hunter2"),
        (b"hunter2", b"hunter2"),
        (b" hunter2 \n\n", b" hunter2 \n"),
        ("pässword\n".encode(), "pässword".encode()),
        (b"\xff\xfe\n", b"\xff\xfe\n"),
    ],
)
def test_one_line_end_is_taken_off_text(tmp_path: Path, content: bytes, value: bytes) -> None:
    path = write(tmp_path / "secret", content)
    assert SecretFiles(strict=True).read(path).reveal() == value


def test_links_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "there", b"hunter2")
    (tmp_path / "link").symlink_to("there")
    assert SecretFiles(strict=True).read(str(tmp_path / "link")).reveal() == b"hunter2"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"x" * (MAX_BYTES + 1), "over")],
)
def test_empty_and_large_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = write(tmp_path / "secret", content)
    with pytest.raises(ConfigError, match=f"file:{path}.*{reason}"):
        SecretFiles(strict=False).read(path)


def test_the_largest_file(tmp_path: Path) -> None:
    path = write(tmp_path / "secret", b"x" * MAX_BYTES)
    assert len(SecretFiles(strict=False).read(path).reveal()) == MAX_BYTES


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    files = SecretFiles(strict=False)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="no ordinary file"):
        files.read(str(tmp_path / "pipe"))
    with pytest.raises(ConfigError, match="no ordinary file"):
        files.read(str(tmp_path))
    with pytest.raises(ConfigError, match="No such file"):
        files.read(str(tmp_path / "missing"))


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "secret", b"hunter2", mode)
    with pytest.raises(ConfigError, match=f"may be written by others: chmod 600 {path}"):
        SecretFiles(strict=False).read(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o444])
def test_a_file_that_others_may_read_is_warned_of_once_or_refused(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "secret", b"hunter2", mode)
    files = SecretFiles(strict=False)
    with caplog.at_level(logging.WARNING):
        assert files.read(path).reveal() == files.read(path).reveal() == b"hunter2"
    assert len(caplog.records) == 1
    assert f"file:{path} may be read by others: chmod 600 {path}" in caplog.text
    assert "hunter2" not in caplog.text
    with pytest.raises(ConfigError, match="may be read by others"):
        SecretFiles(strict=True).read(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "secret", b"hunter2")
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        SecretFiles(strict=False).read(path)
