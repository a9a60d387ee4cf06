"""What backends refuse of ragged and padded models at load, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from model_files import load_spec
from penstock.backends.registry import load
from penstock.errors import LoadFailed
from penstock.repository.config_file import read_config
from served_models import write_config, write_model
from uneven_models import (
    POOLED,
    RAGGED,
    RAGGED_CONFIG,
    TOKENS,
    padding_lines,
    write_onnx_text,
    write_uneven,
)

Change = Callable[[str], str]

HEAD = 'backend: "onnxruntime"\nmax_batch_size: 8\n'


def refusal(folder: Path) -> str:
    """Why the model there can't be loaded."""
    with pytest.raises(LoadFailed) as caught:
        load(load_spec(folder, read_config(folder)))
    return str(caught.value)


@pytest.mark.extension("ragged_batching")
@pytest.mark.parametrize(
    ("model", "config", "expected"),
    [
        (
            lambda _: (
                "wide (float[n, m] X, int32[rows] LENGTHS) => (int32[rows] SUM, float[n, m] DOUBLED)"
                "{ SUM = Identity (LENGTHS) DOUBLED = Identity (X) }"
            ),
            str,
            "input 'X' has allow_ragged_batch, but the model has shape [-1, -1], expected [-1]: the"
            " elements of all requests side by side",
        ),
        (
            str,
            lambda text: text.replace('"LENGTHS"', '"ENDS"'),
            "batch_input makes 'ENDS', which is no input of the model: expected one of X, LENGTHS",
        ),
        (
            str,
            lambda text: text.replace("TYPE_INT32", "TYPE_FP32"),
            "batch_input 'LENGTHS': the model has TYPE_INT32, the configuration TYPE_FP32",
        ),
        (
            str,
            lambda text: text.replace("BATCH_ITEM_SHAPE_FLATTEN", "BATCH_ITEM_SHAPE"),
            "batch_input 'LENGTHS': the model has shape [-1], expected 2 dimensions",
        ),
        (
            str,
            lambda text: text[: text.index("batch_input")],
            "the model needs input 'LENGTHS', which the configuration leaves out: it has X",
        ),
        (
            str,
            lambda text: text.replace("dims: [ -1 ] allow", "dims: [ ] allow"),
            "input 'X' has allow_ragged_batch and no dims, which the model can't tell: expected"
            " those of a request",
        ),
    ],
)
def test_onnx_models_that_are_not_as_configured(
    tmp_path: Path, model: Change, config: Change, expected: str
) -> None:
    write_onnx_text(tmp_path / "m", model(RAGGED))
    write_config(tmp_path / "m", HEAD + config(RAGGED_CONFIG))
    assert refusal(tmp_path / "m") == expected


@pytest.mark.extension("ragged_batching")
def test_our_own_class_declares_what_it_gets(tmp_path: Path) -> None:
    write_uneven(tmp_path)
    path = tmp_path / "ragged_python/1/model.py"
    path.write_text(path.read_text().replace('"X": Spec("FP32")', '"X": Spec("FP32", -1)'))
    assert "'X' has allow_ragged_batch, but the model has shape [-1, -1]" in refusal(
        tmp_path / "ragged_python"
    )


@pytest.mark.extension("ragged_batching")
@pytest.mark.parametrize("key", ["batch_input", "batch_output"])
def test_tritons_class_needs_no_batch_inputs(tmp_path: Path, key: str) -> None:
    text = RAGGED_CONFIG
    if key == "batch_output":
        start, end = text.index("batch_input"), text.index("batch_output")
        text = text[:start] + text[end:]
    write_model(tmp_path / "m", "ragged_triton", f"max_batch_size: 8\n{text}")
    assert refusal(tmp_path / "m") == (
        f"{key} is not for class TritonPythonModel, which gets each request by itself, with its own"
        " shapes; expected none"
    )


@pytest.mark.extension("padded_buckets")
def test_a_mask_is_taken_from_the_model_when_it_is_not_listed(tmp_path: Path) -> None:
    write_onnx_text(tmp_path / "m", POOLED)
    write_config(tmp_path / "m", HEAD + TOKENS.format(mask="") + padding_lines())
    loaded = load(load_spec(tmp_path / "m", read_config(tmp_path / "m")))
    assert [(t["name"], t["data_type"], t["dims"]) for t in loaded.config["input"]] == [
        ("TOKENS", "TYPE_INT64", [-1]),
        ("MASK", "TYPE_INT64", [-1]),
    ]
    loaded.close()


@pytest.mark.extension("padded_buckets")
def test_an_input_that_is_no_mask_may_not_be_left_out(tmp_path: Path) -> None:
    write_onnx_text(tmp_path / "m", POOLED)
    write_config(tmp_path / "m", HEAD + TOKENS.format(mask="") + padding_lines(mask=None))
    assert refusal(tmp_path / "m") == (
        "the model needs input 'MASK', which the configuration leaves out: it has TOKENS"
    )
