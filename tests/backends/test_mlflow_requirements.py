"""What a model says that it needs, against what is installed."""

from __future__ import annotations

import logging
import platform
from importlib import metadata
from pathlib import Path

import pytest

from mlflow_models import write_mlmodel
from penstock.backends import mlflow_requirements
from penstock.backends.mlflow_model_file import ModelFile, read_model_file
from penstock.backends.mlflow_requirements import check_requirements, compare
from penstock.errors import LoadFailed

pytestmark = pytest.mark.extension("mlflow")

NUMPY = metadata.version("numpy")
HERE = platform.python_version()


def model(model_dir: Path, requirements: str | None = None, python: str = HERE) -> ModelFile:
    conf = {"loader_module": "mlflow.pyfunc.model", "python_version": python}
    write_mlmodel(model_dir, {"python_function": conf})
    if requirements is not None:
        (model_dir / "1" / "requirements.txt").write_text(requirements)
    return read_model_file(model_dir / "1")


def check(file: ModelFile, policy: str = "", *, bytecode: bool = False) -> None:
    config = {"parameters": {"mlflow_requirements": {"string_value": policy}}} if policy else {}
    check_requirements(file, config, "python_function", bytecode=bytecode)


def test_what_is_there(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = f"""
        # a comment
        numpy=={NUMPY}  # another one
        --extra-index-url https://example.org
        -c constraints.txt
        NumPy>=1 \\
          ,<99
        nothing-such; python_version < "3"
        pyyaml
    """
    check(model(model_dir, text))
    check(model(model_dir))
    assert not caplog.records


def test_what_is_missing(model_dir: Path) -> None:
    file = model(model_dir, "numpy\nno-such-package==1.2\nnor_this[extra]>3\n")
    with pytest.raises(
        LoadFailed, match=r"needs no-such-package==1.2, nor_this>3: not installed he"
    ):
        check(file)
    with pytest.raises(LoadFailed, match="Penstock installs nothing"):
        check(file)


def test_what_is_another_version(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = model(model_dir, "numpy==0.1")
    check(file)
    assert f"needs numpy==0.1 ({NUMPY} is installed)" in caplog.text
    with pytest.raises(LoadFailed, match=r"needs numpy==0\.1 \(.* is installed\)"):
        check(file, "exact")
    with pytest.raises(LoadFailed, match="'strict', expected one of refuse, exact, warn"):
        check(file, "strict")


def test_warned_of_only(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(model(model_dir, "no-such-package", "3.2.1"), "warn", bytecode=True)
    assert "no-such-package: not installed here; loaded all the same" in caplog.text
    assert "Python 3.2.1" in caplog.text


def test_local_versions_and_prereleases(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    versions = {"torch": "2.13.0+cpu", "early": "2.0rc1"}
    monkeypatch.setattr(mlflow_requirements, "installed", versions.get)
    check(model(model_dir, "torch==2.13.0\nearly>=1\n"))
    assert not caplog.records
    check(model(model_dir, "torch==2.13.0+cu126\n"))
    assert "torch==2.13.0+cu126 (2.13.0+cpu is installed)" in caplog.text


def test_packages_under_another_name() -> None:
    """What is imported by that name will do: xgboost-cpu is xgboost."""
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("yaml")
    assert mlflow_requirements.installed("yaml") == metadata.version("pyyaml")
    assert mlflow_requirements.installed("xgboost") == metadata.version("xgboost-cpu")
    # modules that belong to no package, or are none
    for name in ("json", "no-such-package", "a.b", "yaml.reader"):
        assert mlflow_requirements.installed(name) is None


def test_mlflow_itself(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only Python functions are loaded by it."""
    monkeypatch.setattr(mlflow_requirements, "installed", lambda name: None)
    file = model(model_dir, "mlflow==3.1")
    assert compare(file, "sklearn").missing == []
    assert compare(file, "python_function").missing == ["mlflow==3.1"]


def test_another_python(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    major, minor, _ = HERE.split(".")
    check(model(model_dir, python=f"{major}.{minor}.99"), bytecode=True)
    assert not caplog.records
    file = model(model_dir, python="3.8.20")
    check(file)
    assert f"is from Python 3.8.20, this is {HERE}" in caplog.text
    with pytest.raises(
        LoadFailed, match=r"is from Python 3.8.20, whose pickled functions no other"
    ):
        check(file, bytecode=True)
    with pytest.raises(LoadFailed, match=r"Python 3.8.20"):
        check(file, "exact")


def test_lines_that_are_no_requirements(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "numpy\ngit+https://example.org/x.git\n-r more.txt\n-r ../../outside.txt\n-r more.txt\n"
    (model_dir / "1").mkdir(exist_ok=True)
    (model_dir / "1" / "more.txt").write_text("missing-of-more\n")
    (model_dir / "outside.txt").write_text("missing-of-outside\n")
    found = compare(model(model_dir, text), "python_function")
    assert found.missing == ["missing-of-more"]
    assert "requirements.txt:2: 'git+https" in found.unreadable[0]
    assert found.unreadable[1:] == [
        "'../../outside.txt' can't be followed",
        "'more.txt' can't be followed",
    ]


def test_conda(model_dir: Path) -> None:
    file = model(model_dir)
    conda = model_dir / "1" / "conda.yaml"
    conda.write_text("dependencies: [python=3.2, {pip: ['no-such>=1', numpy, '-r x.txt']}]\n")
    found = compare(file, "python_function")
    assert (found.missing, found.unreadable) == (["no-such>=1"], ["'x.txt' can't be followed"])
    conda.write_text("[")
    with pytest.raises(LoadFailed, match=r"conda\.yaml is no YAML"):
        check(file)
    for text in ("", "dependencies: 3", "dependencies: [{pip: 3}, 7]"):
        conda.write_text(text)
        check(file)


def test_without_the_extra(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_requirements, "find_spec", lambda name: None)
    with pytest.raises(LoadFailed, match=r"pip install 'penstock\[mlflow\]'"):
        check(model(model_dir, "numpy"))
