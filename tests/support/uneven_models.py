"""Small real models for batches of requests whose shapes differ: ragged ones, and padded ones with a mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx.parser

from penstock.types import Array
from served_models import write_config, write_model

HEAD: Final = '<ir_version: 8, opset_import: ["" : 17]>\n'

TABLE: Final = (np.arange(64, dtype=np.float32).reshape(16, 4) * 7) % 13
"""Embeddings of the padded models: whole numbers, so that sums are exact in whatever order."""

RAGGED: Final = """
sums_and_doubles (float[n] X, int32[rows] LENGTHS) => (float[rows, 1] SUM, float[n] DOUBLED)
<float[1] zero = {0.0}, float two = {2.0}, int32 first = {0}, int64[1] second = {1}>
{
    sums = CumSum (X, first)
    until = Concat <axis = 0> (zero, sums)
    ends = CumSum (LENGTHS, first)
    starts = Sub (ends, LENGTHS)
    upper = Gather (until, ends)
    lower = Gather (until, starts)
    each = Sub (upper, lower)
    SUM = Unsqueeze (each, second)
    DOUBLED = Mul (X, two)
}
"""
"""The sum of each row of X, and all elements of X doubled."""

RAGGED_INPUT: Final = (
    'input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]'
)

RAGGED_OUTPUTS: Final = """
output [
  { name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] },
  { name: "DOUBLED" data_type: TYPE_FP32 dims: [ -1 ] }
]
"""

RAGGED_CONFIG: Final = f"""
{RAGGED_INPUT}
{RAGGED_OUTPUTS}
batch_input [ {{
  kind: BATCH_ITEM_SHAPE_FLATTEN target_name: "LENGTHS" data_type: TYPE_INT32 source_input: "X"
}} ]
batch_output [ {{
  kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "DOUBLED" source_input: "X"
}} ]
"""

POOLED: Final = f"""
pooled (int64[rows, n] TOKENS, int64[rows, n] MASK) => (float[rows, 4] MEAN, float[rows, n] SCORES)
<float[16, 4] table = {{{", ".join(map(str, TABLE.ravel().tolist()))}}}, int64[1] second = {{1}}, int64[1] last = {{2}}>
{{
    embedded = Gather (table, TOKENS)
    weights = Cast <to = 1> (MASK)
    wide = Unsqueeze (weights, last)
    masked = Mul (embedded, wide)
    total = ReduceSum <keepdims = 0> (masked, second)
    count = ReduceSum <keepdims = 1> (weights, second)
    MEAN = Div (total, count)
    SCORES = ReduceSum <keepdims = 0> (embedded, last)
}}
"""
"""Means of the embeddings under a mask, and a score of each token."""

TOKENS: Final = """
input [ {{ name: "TOKENS" data_type: TYPE_INT64 dims: [ -1 ] }} {mask} ]
output [
  {{ name: "MEAN" data_type: TYPE_FP32 dims: [ 4 ] }},
  {{ name: "SCORES" data_type: TYPE_FP32 dims: [ -1 ] }}
]
"""

RAGGED_MODELS: Final = ("ragged_onnx", "ragged_python", "ragged_triton")
PADDED_MODELS: Final = ("padded_onnx", "padded_python")

PADDING: Final[Mapping[str, str]] = {
    "padding.TOKENS.buckets": "4, 8, 16",
    "padding.TOKENS.value": "15",
    "padding.TOKENS.mask": "MASK",
    "padding.SCORES.cut_to": "TOKENS",
}


def write_onnx_text(model_dir: Path, text: str) -> None:
    """A model in ONNX's own text format."""
    model: Any = onnx.parser.parse_model(HEAD + text)
    path = model_dir / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def padding_lines(**changes: str | None) -> str:
    """PADDING as config.pbtxt has it; `changes` by the key's last part, None to leave it out."""
    keys = {key: changes.get(key.rsplit(".", 1)[1], value) for key, value in PADDING.items()}
    return "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in keys.items()
        if value is not None
    )


def write_uneven(folder: Path, batching: str = "") -> None:
    """All of them, by the names in RAGGED_MODELS and PADDED_MODELS; `batching`: more for their config.pbtxt."""
    start = f"max_batch_size: 8\n{batching}\n"
    onnx_start = f'backend: "onnxruntime"\n{start}'
    write_onnx_text(folder / "ragged_onnx", RAGGED)
    write_config(folder / "ragged_onnx", onnx_start + RAGGED_CONFIG)
    write_model(folder / "ragged_python", "ragged_python", start + RAGGED_CONFIG)
    write_model(folder / "ragged_triton", "ragged_triton", start + RAGGED_INPUT + RAGGED_OUTPUTS)
    # the mask is one more input of the file, and not listed
    write_onnx_text(folder / "padded_onnx", POOLED)
    write_config(folder / "padded_onnx", onnx_start + TOKENS.format(mask="") + padding_lines())
    mask = ', { name: "MASK" data_type: TYPE_FP32 dims: [ -1 ] }'
    padded = start + TOKENS.format(mask=mask) + padding_lines()
    write_model(folder / "padded_python", "padded_python", padded)


def mean_and_scores(tokens: Array) -> dict[str, Array]:
    """What the padded models answer to one request alone."""
    embedded = TABLE[tokens]
    return {"MEAN": embedded.mean(axis=1), "SCORES": embedded.sum(axis=2)}


def sums_and_doubles(x: Array) -> dict[str, Array]:
    """What the ragged models answer to one request alone."""
    return {"SUM": x.sum(axis=1, keepdims=True), "DOUBLED": 2 * x}
