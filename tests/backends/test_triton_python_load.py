"""Loading Triton `model.py` files: configuration, `initialize`, `finalize`, and what is refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from model_files import load_spec
from penstock.backends.triton_python import initialize_arguments
from penstock.errors import LoadFailed
from penstock.model_config import parse
from triton_models import ADD_SUB, executing, loaded


def test_add_sub_completes_its_configuration(model_dir: Path) -> None:
    defaults = {"backend": "", "max_batch_size": 0, "input": [], "output": []}
    config = loaded(model_dir, ADD_SUB, defaults).config
    assert config["max_batch_size"] == 8
    assert config["dynamic_batching"] == {}
    assert [t["name"] for t in config["input"]] == ["INPUT0", "INPUT1"]
    assert parse(config).output[1].dims == (4,)


def test_initialize_gets_strings(model_dir: Path) -> None:
    source = """
        class TritonPythonModel:
            def initialize(self, args):
                assert all(isinstance(v, str) for v in args.values())
                raise ValueError(repr(dict(args)))
            def execute(self, requests):
                return []
    """
    with pytest.raises(LoadFailed) as caught:
        loaded(model_dir, source)
    text = str(caught.value)
    for key, value in {
        "model_instance_kind": "CPU",
        "model_instance_name": "tiny_0_0",
        "model_instance_device_id": "0",
        "model_repository": str(model_dir),
        "model_version": "1",
        "model_name": "tiny",
    }.items():
        assert f"'{key}': '{value}'" in text
    assert text.startswith("initialize failed: ValueError: ")
    assert text.endswith("(1/model.py:5)")


def test_model_without_signature_is_refused(model_dir: Path) -> None:
    with pytest.raises(LoadFailed, match=r"no input.*config\.pbtxt.*auto_complete_config"):
        loaded(model_dir, executing("return []"), {})


def test_auto_complete_that_contradicts_is_refused(model_dir: Path) -> None:
    config = {"input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [4]}]}
    source = ADD_SUB.replace("if input[", "if True or input[").replace("[4]}", "[5]}")
    with pytest.raises(
        LoadFailed, match=r"auto_complete_config failed: ValueError: input 'INPUT0'"
    ):
        loaded(model_dir, source, config)


def test_auto_complete_that_returns_nothing_is_refused(model_dir: Path) -> None:
    source = ADD_SUB.replace("return auto_complete_model_config\n", "return None\n")
    with pytest.raises(LoadFailed, match="must return the ModelConfig"):
        loaded(model_dir, source, {})


def test_class_without_execute_is_refused(model_dir: Path) -> None:
    with pytest.raises(LoadFailed, match=r"no method execute\(self, requests\)"):
        loaded(model_dir, "class TritonPythonModel: pass")


def test_finalize_that_raises_is_logged(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = executing("return []") + "    def finalize(self):\n        raise ValueError('late')\n"
    loaded(model_dir, source).close()
    assert "ValueError: late" in caplog.text


def test_logger_and_model_dir(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = executing("return []") + (
        "    def initialize(self, args):\n"
        "        pb_utils.Logger.log_warn(pb_utils.get_model_dir())\n"
        "        pb_utils.Logger.log('said', pb_utils.Logger.ERROR)\n"
    )
    with caplog.at_level(logging.INFO):
        loaded(model_dir, source)
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", str(model_dir / "1")),
        ("ERROR", "said"),
    ]


def test_a_model_on_any_gpu_is_told_of_the_only_one_it_sees(model_dir: Path) -> None:
    spec = replace(load_spec(model_dir), device="cuda:3")
    arguments = initialize_arguments(spec, {})
    assert (arguments["model_instance_kind"], arguments["model_instance_device_id"]) == ("GPU", "0")
