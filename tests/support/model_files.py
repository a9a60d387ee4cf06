"""Writes tiny models into a folder, and loads them as a worker would."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from penstock.backends.base import Batch, LoadSpec, Outputs, RequestInfo
from penstock.model_config import ConfigDict
from penstock.types import Array

ONNX_TYPES: Mapping[str, int] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}

Shape = Sequence[int | str | None]


def load_spec(model_dir: Path, config: ConfigDict | None = None, threads: int = 1) -> LoadSpec:
    """What a worker would be told to load of version 1 in `model_dir`."""
    return LoadSpec(
        model_name=model_dir.name,
        version=1,
        model_dir=model_dir,
        config={"name": model_dir.name, **(config or {})},
        instance_name=f"{model_dir.name}_0_0",
        device="cpu",
        threads=threads,
    )


def write_python(model_dir: Path, source: str, filename: str = "model.py") -> Path:
    """Write `source`, dedented, as the model file of version 1."""
    path = model_dir / "1" / filename
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path


def write_onnx(
    model_dir: Path,
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str]]],
    inputs: Mapping[str, tuple[str, Shape]],
    outputs: Mapping[str, tuple[str, Shape]],
    filename: str = "model.onnx",
) -> Path:
    """Write a model of (operator, inputs, outputs) nodes. Tensors are (datatype, shape with names for free sizes)."""
    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "graph",
        [_value(name, *tensor) for name, tensor in inputs.items()],
        [_value(name, *tensor) for name, tensor in outputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = model_dir / "1" / filename
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def write_onnx_identity(model_dir: Path, datatype: str, shape: Shape) -> Path:
    """Write a model that gives X back as Y."""
    return write_onnx(
        model_dir,
        [("Identity", ["X"], ["Y"])],
        {"X": (datatype, shape)},
        {"Y": (datatype, shape)},
    )


def batch_of(*requests: Mapping[str, Array], outputs: Sequence[Sequence[str]] = ()) -> Batch:
    """A batch as the worker makes it: inputs joined along the first dimension, read-only."""
    first, *others = requests
    inputs = {
        name: np.concatenate([r[name] for r in requests]) if others else array
        for name, array in first.items()
    }
    for array in inputs.values():
        array.flags.writeable = False
    asked_for = [tuple(names) for names in outputs] or [()] * len(requests)
    rows = [len(next(iter(r.values()))) if _has_rows(r) else 1 for r in requests]
    infos = [
        RequestInfo(rows[i], id=f"request-{i}", outputs=asked_for[i]) for i in range(len(requests))
    ]
    return Batch(inputs, infos)


def whole(answer: Any) -> Outputs:
    """The answer of a batch that was answered as one."""
    assert isinstance(answer, Mapping), answer
    return answer


def each(answer: Any) -> Sequence[Any]:
    """The answer of a batch that was answered request by request."""
    assert isinstance(answer, Sequence), answer
    return answer


def _has_rows(request: Mapping[str, Array]) -> bool:
    return all(array.ndim > 0 for array in request.values())


def _value(name: str, datatype: str, shape: Shape) -> Any:
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], list(shape))
