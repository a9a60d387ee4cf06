"""Triton's JSON of a trace, as its trace_summary.py reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from penstock.telemetry.tracing.trace import Trace, TracedTensor
from penstock.tensors import deserialize_bytes
from penstock.types import NUMPY_DTYPES


def trace_json(trace: Trace, *, timestamps: bool) -> bytes:
    """All objects of a trace and its children, joined by commas: part of a JSON array."""
    records = _records(trace, timestamps=timestamps)
    return ",".join(json.dumps(record, separators=(",", ":")) for record in records).encode()


def _records(trace: Trace, *, timestamps: bool) -> Iterator[dict[str, Any]]:
    if timestamps:
        yield from (_point(trace, *point) for point in trace.receives)
    about: dict[str, Any] = {
        "id": trace.id,
        "model_name": trace.model,
        "model_version": trace.version,
    }
    if trace.request_id:
        about["request_id"] = trace.request_id
    if trace.parent_id:
        about["parent_id"] = trace.parent_id
    yield about
    if timestamps:
        yield from (_point(trace, *point) for point in trace.points)
    for tensor in trace.tensors:
        yield {"id": trace.id, "activity": tensor.activity, "tensor": _tensor(tensor)}
    if timestamps:
        yield from (_point(trace, *point) for point in trace.sends)
    # those that are still to come are of an answer that nobody waits for
    for child in list(trace.children):
        yield from _records(child, timestamps=timestamps)


def _point(trace: Trace, name: str, ns: int) -> dict[str, Any]:
    return {"id": trace.id, "timestamps": [{"name": name, "ns": ns}]}


def _tensor(tensor: TracedTensor) -> dict[str, str]:
    return {
        "name": tensor.name,
        "data": ",".join(_elements(tensor)),
        "shape": ",".join(map(str, tensor.shape)),
        "dtype": tensor.datatype,
    }


def _elements(tensor: TracedTensor) -> list[str]:
    match tensor.datatype:
        case "BYTES":
            elements = deserialize_bytes(tensor.data, prod(tensor.shape)).tolist()
            return [f'"{element.decode(errors="backslashreplace")}"' for element in elements]
        case "BOOL":
            return ["1" if value else "0" for value in tensor.data]
        case "FP16" | "BF16":
            # as Triton, whose reader has no text for them
            return []
    array = np.frombuffer(tensor.data, NUMPY_DTYPES[tensor.datatype])
    # as NumPy writes them: the shortest text that is the same number
    return [str(value).removesuffix(".0") for value in array]
