"""Which backend a configuration or a folder of files asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from model_files import load_spec
from penstock.backends.registry import backend_for, load
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"backend": "python"}, "python"),
        ({"backend": "onnxruntime", "platform": ""}, "onnxruntime"),
        ({"backend": "", "platform": "onnxruntime_onnx"}, "onnxruntime"),
        ({"default_model_filename": "net.onnx"}, "onnxruntime"),
        ({"default_model_filename": "serve.py"}, "python"),
    ],
)
def test_configuration_names_the_backend(config: ConfigDict, expected: str, tmp_path: Path) -> None:
    assert backend_for(config, tmp_path) == expected


@pytest.mark.parametrize(
    ("filename", "expected"), [("model.onnx", "onnxruntime"), ("model.py", "python")]
)
def test_model_file_names_the_backend(filename: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / filename).touch()
    assert backend_for({"backend": "", "platform": ""}, tmp_path) == expected


def test_configuration_beats_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    assert backend_for({"backend": "python"}, tmp_path) == "python"


@pytest.mark.parametrize("config", [{"backend": "fortran"}, {"platform": "fortran"}])
def test_unknown_backend_lists_the_known_ones(config: ConfigDict, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"'fortran'; known backends: onnxruntime, python"):
        backend_for(config, tmp_path)


def test_no_file_says_what_was_expected_and_where(tmp_path: Path) -> None:
    with pytest.raises(
        LoadFailed, match=r"model\.onnx \(onnxruntime\) or model\.py \(python\)"
    ) as e:
        backend_for({}, tmp_path)
    assert str(tmp_path) in str(e.value)


def test_file_with_another_suffix_is_unclear(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"default_model_filename 'model\.bin'"):
        backend_for({"default_model_filename": "model.bin"}, tmp_path)


def test_two_model_files_are_unclear(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    (tmp_path / "model.py").touch()
    with pytest.raises(
        LoadFailed, match=r"holds model\.onnx \(onnxruntime\) and model\.py \(python\): say"
    ):
        backend_for({}, tmp_path)


def test_load_refuses_an_unknown_backend(model_dir: Path) -> None:
    with pytest.raises(LoadFailed, match="known backends"):
        load(load_spec(model_dir, {"backend": "fortran"}))


def test_registry_imports_no_backend() -> None:
    code = (
        "import sys, penstock.backends.registry;"
        "print([m for m in ('onnxruntime', 'penstock.backends.python_backend') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
