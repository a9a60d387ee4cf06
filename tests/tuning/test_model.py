"""Which models can be tuned, what may be tried with them, and what is written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from backend_cases import write_decorated, write_onnx_network
from penstock.errors import ConfigError
from penstock.repository.config_file import read_config
from penstock.trust.copying import SIGNATURE
from penstock.tuning.candidate import EXCHANGEABLE, Candidate
from penstock.tuning.model import TunedModel, read_model

ONNX = """\
# ours
backend: "onnxruntime"
max_batch_size: 8
dynamic_batching { }
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
"""
BEST = Candidate("openvino", instances=2, threads=1, max_batch_size=16, delay_us=500)


def write(folder: Path, text: str | None = ONNX) -> Path:
    write_onnx_network(folder / "tiny")
    path = folder / "tiny" / "config.pbtxt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    return folder / "tiny"


def read(folder: Path) -> TunedModel:
    """As it is once a server has completed it."""
    model = read_model(folder)
    filled_in = {"max_batch_size": 64, "dynamic_batching": {}} if model.text is None else {}
    return replace(model, complete={**model.complete, **filled_in})


def test_it_is_what_it_is(tmp_path: Path) -> None:
    model = read(write(tmp_path))
    assert model.now == Candidate("onnxruntime", threads=2, max_batch_size=8)
    assert model.text_for(model.now) == ONNX
    space = model.space(4)
    assert space.backends == EXCHANGEABLE
    assert space.batches and space.waits and space.instances


def test_the_best_one_is_written(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "config.pbtxt").chmod(0o640)
    read(folder).write(BEST)
    text = (folder / "config.pbtxt").read_text()
    assert text.startswith('# ours\nbackend: "openvino"\nmax_batch_size: 16\n')
    assert "intra_op_thread_count" not in text
    written = read(folder)
    assert written.now == BEST
    assert (folder / "config.pbtxt").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in folder.iterdir()) == ["1", "config.pbtxt"]


def test_a_model_without_a_file_gets_one(tmp_path: Path) -> None:
    folder = write(tmp_path, None)
    read(folder).write(BEST)
    config = read_config(folder)
    assert config is not None
    assert read(folder).now == BEST
    assert config["input"] == []


def test_a_file_that_changes_meanwhile_stays(tmp_path: Path) -> None:
    folder = write(tmp_path)
    model = read(folder)
    (folder / "config.pbtxt").write_text(ONNX + "# a thought\n")
    with pytest.raises(ConfigError, match="was changed meanwhile"):
        model.write(BEST)
    assert (folder / "config.pbtxt").read_text().endswith("# a thought\n")


def test_what_can_not_be_written_is_told_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path)
    read(folder).check_writable()
    # permissions don't bind whoever may do everything
    monkeypatch.setattr(os, "access", lambda path, _: path != folder)
    with pytest.raises(ConfigError, match=r"can't be written.*--dry-run"):
        read(folder).check_writable()
    (folder / "1" / SIGNATURE).write_text("")
    read(folder).check_writable()


def test_backends_that_are_no_choice(tmp_path: Path) -> None:
    """A parameter that only one of them knows would be lost, and other files are its own."""
    own = 'parameters { key: "execution_mode" value { string_value: "1" } }'
    assert read(write(tmp_path / "a", ONNX + own)).space(4).backends == ("onnxruntime",)
    write_decorated(tmp_path / "b" / "tiny")
    space = replace(
        read_model(tmp_path / "b" / "tiny"),
        complete={"backend": "python", "max_batch_size": 8},
    ).space(4)
    assert space.backends == ("python",)
    assert not (space.batches or space.waits)


def test_groups_that_say_more_than_a_count_stay(tmp_path: Path) -> None:
    group = "instance_group { count: 1 rate_limiter { priority: 2 } }"
    assert not read(write(tmp_path, ONNX + group)).space(4).instances


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("sequence_batching { }", "'tiny' takes sequences"),
        ("model_transaction_policy { decoupled: true }", "'tiny' is decoupled"),
        ("instance_group { kind: KIND_GPU }", "'tiny' asks for KIND_GPU"),
    ],
)
def test_refused_by_name(more: str, text: str, tmp_path: Path) -> None:
    given = ONNX.replace("dynamic_batching { }", "") + more
    with pytest.raises(ConfigError, match=text):
        read_model(write(tmp_path, given))


def test_encrypted_and_signed_versions(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "1" / "model.sig").write_text("{}")
    assert read(folder).signed
    (folder / "1" / "model.onnx.penc").write_bytes(b"")
    with pytest.raises(ConfigError, match="'tiny' is encrypted"):
        read_model(folder)
