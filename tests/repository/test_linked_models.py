"""Models outside of the repositories, by links that give them other names."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import AlreadyExists, ConfigError
from penstock.repository.config_file import read_config
from penstock.repository.folders import find_models
from penstock.repository.linked_models import LinkedModels


def test_links_come_and_go(tmp_path: Path) -> None:
    linked = LinkedModels(tmp_path / "links")
    assert linked.folders() == {}
    (tmp_path / "resnet" / "1").mkdir(parents=True)
    linked.add("a1b2", tmp_path / "resnet")
    assert linked.folders() == {"a1b2": tmp_path / "resnet"}
    assert list(find_models([linked.folder])) == ["a1b2"]
    with pytest.raises(AlreadyExists, match="'a1b2' is there already"):
        linked.add("a1b2", tmp_path / "resnet")
    linked.remove("a1b2")
    linked.remove("a1b2")
    assert linked.folders() == {}
    assert (tmp_path / "resnet" / "1").is_dir()


def test_a_linked_model_may_be_called_as_its_folder_is(tmp_path: Path) -> None:
    (tmp_path / "resnet").mkdir()
    config = tmp_path / "resnet" / "config.pbtxt"
    config.write_text('name: "resnet" backend: "python"')
    linked = LinkedModels(tmp_path / "links")
    linked.add("a1b2", tmp_path / "resnet")
    read = read_config(linked.folder / "a1b2")
    assert read is not None
    assert read["name"] == "a1b2"
    config.write_text('name: "vgg" backend: "python"')
    with pytest.raises(ConfigError, match="name is 'vgg'; expected 'a1b2'"):
        read_config(linked.folder / "a1b2")
