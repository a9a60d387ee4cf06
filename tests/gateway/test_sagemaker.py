"""Which folder is meant where SageMaker has unpacked a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import InvalidRequest
from penstock.gateway.sagemaker import model_folder

pytestmark = pytest.mark.extension("sagemaker")


def test_a_model_by_its_configuration_or_its_versions(tmp_path: Path) -> None:
    for name in ("pbtxt", "yaml"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"config.{name}").touch()
        assert model_folder(tmp_path / name) == tmp_path / name
    (tmp_path / "bare" / "1").mkdir(parents=True)
    assert model_folder(tmp_path / "bare") == tmp_path / "bare"


def test_a_folder_with_a_model_in_it(tmp_path: Path) -> None:
    for name in ("resnet", ".git", "__pycache__"):
        (tmp_path / name).mkdir()
    (tmp_path / "README").touch()
    assert model_folder(tmp_path) == tmp_path / "resnet"


def test_none_or_too_many(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="folders: none"):
        model_folder(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(InvalidRequest, match="folders: a, b"):
        model_folder(tmp_path)
    with pytest.raises(InvalidRequest, match="No such file or directory"):
        model_folder(tmp_path / "c")


@pytest.mark.parametrize("url", ["/dev/shm", "/proc/self", "/sys", "/tmp/../dev", "models", ""])
def test_where_none_may_be(url: str) -> None:
    with pytest.raises(InvalidRequest, match="expected an absolute path outside of /dev"):
        model_folder(Path(url))


def test_a_link_is_followed_first(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self")
    with pytest.raises(InvalidRequest, match="outside of /dev"):
        model_folder(tmp_path / "link")


def test_what_no_path_can_be(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for url in ("/a\0b", "/" + "a" * 5000, str(tmp_path / "loop")):
        with pytest.raises(InvalidRequest, match=r"can't be looked up|File name too long"):
            model_folder(Path(url))
