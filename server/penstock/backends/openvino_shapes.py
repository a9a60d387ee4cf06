"""Shapes that a model is compiled for. They are changed in OpenVINO's model before that: its operators' own follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.backends.completion import model_dims
from penstock.model_config import ConfigDict


def free_batch(model: Any) -> None:
    """Let the first dimension of every input be of any size, as Triton does where a model is to batch. One that was
    exported for a batch of one often can."""
    if all(_free(port) for port in model.inputs):
        return
    model.reshape({port: [-1, *_dims(port)[1:]] for port in model.inputs})


def fix_batch(model: Any, rows: int) -> None:
    """Let the first dimension of every input be that."""
    model.reshape({port: [rows, *_dims(port)[1:]] for port in model.inputs})


def take_dims(model: Any, names: Sequence[str], config: ConfigDict) -> None:
    """Let inputs have the configuration's dims, and any batch size where it batches."""
    batch = [-1] if config.get("max_batch_size") else []
    dims = {t["name"]: list(model_dims(t)) for t in config.get("input") or () if t.get("dims")}
    ports = zip(names, model.inputs, strict=True)
    shapes = {port: batch + dims[name] for name, port in ports if name in dims}
    if shapes:
        model.reshape(shapes)


def _free(port: Any) -> bool:
    shape = port.get_partial_shape()
    return bool(shape.rank.is_dynamic or not len(shape) or shape[0].is_dynamic)


def _dims(port: Any) -> list[Any]:
    return list(port.get_partial_shape())
