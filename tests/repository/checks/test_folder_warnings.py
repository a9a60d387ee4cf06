"""What lies in a model's folder in vain, or is missing there."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.repository.checks.findings import Finding
from penstock.repository.checks.model_check import check_model

pytestmark = pytest.mark.extension("check")

CONFIG = """
backend: "onnxruntime"
max_batch_size: 4
input [ { name: "X" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" } ]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A healthy model."""
    folder = tmp_path / "m"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").touch()
    (folder / "1" / "weights.data").touch()
    (folder / "labels.txt").write_text("a\nb\nc\n")
    (folder / "README.md").touch()
    (folder / "train.py").touch()
    (folder / "config.pbtxt").write_text(CONFIG)
    return folder


def findings(folder: Path) -> list[Finding]:
    return check_model(folder).findings


def only(folder: Path) -> tuple[str, str, str]:
    """Severity, path within the folder, and text of the only finding."""
    (found,) = findings(folder)
    return found.severity, str(Path(found.file).relative_to(folder)), found.text


def test_a_healthy_model(folder: Path) -> None:
    model = check_model(folder)
    assert (model.findings, model.failed) == ([], False)
    assert (model.backend, model.present, model.served) == ("onnxruntime", [1], (1,))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yml", "config.yml is never read; did you mean config.pbtxt or config.yaml?"),
        ("config.json", "config.json is never read"),
        ("model.onnx", "model.onnx is never read here; expected in a version's folder"),
        ("1/model.py", "model.py is never read: the model file is model.onnx"),
        ("1/model.plan", "model.plan is never read: the model file is model.onnx"),
        ("warmup/row.bin", "row.bin is never read: model_warmup does not name it"),
        ("initial_state/zero", "zero is never read: sequence_batching.state does not name it"),
        ("old_labels.txt", "old_labels.txt is never read: no label_filename names it"),
        ("v2/model.onnx", "folder 'v2' is no version: a version's folder is called by its number"),
        ("0/model.onnx", "version 0 is never served"),
    ],
)
def test_what_is_never_read(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    severity, _, said = only(folder)
    assert severity == "warning"
    assert text in said


def test_a_python_model_may_read_anything(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    for name in ("model.py", "model.onnx", "model.pt"):
        (tmp_path / "m" / "1" / name).touch()
    (tmp_path / "m" / "config.pbtxt").write_text('backend: "python"')
    assert findings(tmp_path / "m") == []


@pytest.mark.parametrize(
    "names", [("model.pt",), ("model.pt2",), ("model.py", "model.safetensors"), ("net.pt",)]
)
def test_a_model_of_torch(names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    for name in names:
        (tmp_path / "m" / "1" / name).touch()
    (tmp_path / "m" / "config.pbtxt").write_text('backend: "torch"')
    said = ["version 1 has no model file 'model.pt'; it has net.pt"] * ("net.pt" in names)
    assert [each.text for each in findings(tmp_path / "m")] == said


@pytest.mark.parametrize("name", ["model.xml", "model.onnx"])
def test_a_model_of_openvino(name: str, tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / name).touch()
    (tmp_path / "m" / "config.pbtxt").write_text('backend: "openvino"')
    assert findings(tmp_path / "m") == []


def test_an_onnx_file_beside_openvinos_own_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    for name in ("model.xml", "model.onnx"):
        (tmp_path / "m" / "1" / name).touch()
    (tmp_path / "m" / "config.pbtxt").write_text('backend: "openvino"')
    (finding,) = findings(tmp_path / "m")
    assert finding.text == "model.onnx is never read: the model file is model.xml"


def test_a_version_without_a_model(folder: Path) -> None:
    (folder / "2").mkdir()
    assert only(folder) == ("error", "2", "version 2 is empty")
    (folder / "2" / "weights.data").touch()
    expected = "version 2 has no model file 'model.onnx'; it has weights.data"
    assert only(folder) == ("error", "2", expected)


def test_a_version_that_is_not_served_may_lack_anything(folder: Path) -> None:
    (folder / "2").mkdir()
    with (folder / "config.pbtxt").open("a") as config:
        config.write("version_policy { specific { versions: [ 1 ] } }")
    assert findings(folder) == []


def test_a_version_with_a_zero_in_front(folder: Path) -> None:
    (folder / "1").rename(folder / "01")
    found = findings(folder)
    assert ("error", "version folder '01' can't be served; expected 1") in [
        (each.severity, each.text) for each in found
    ]


def test_a_version_that_is_too_large(folder: Path) -> None:
    (folder / str(2**63)).mkdir()
    text = f"version folder '{2**63}' can't be served; expected {2**63 - 1} at most"
    assert [(each.severity, each.text) for each in findings(folder)] == [("error", text)]


def test_no_version(folder: Path) -> None:
    (folder / "1").rename(folder / "one")
    assert only(folder) == ("error", ".", "no version folder (a number, such as 1/)")


def test_labels(folder: Path) -> None:
    (folder / "labels.txt").write_text("a\nb\n")
    severity, file, said = only(folder)
    assert (severity, file) == ("warning", "config.pbtxt")
    assert said == (
        "output[0].label_filename is 'labels.txt' with 2 labels; the output has 3 classes"
    )
    (folder / "labels.txt").unlink()
    severity, file, said = only(folder)
    assert (severity, file) == ("error", "config.pbtxt")
    assert "label file 'labels.txt' is not in the model's folder" in said


def test_two_configurations(folder: Path) -> None:
    (folder / "config.yaml").write_text("backend: onnxruntime")
    (found,) = findings(folder)
    assert found.severity == "error"
    assert "are both there; expected only one of them" in found.text


def test_no_configuration_and_no_model_file(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "weights").touch()
    severity, file, said = only(tmp_path / "m")
    assert (severity, file) == ("error", "1")
    assert said.startswith("no backend configured, and no model file to tell it by")
