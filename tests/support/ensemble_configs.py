"""Configurations of ensembles, short to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import text_format

from penstock.model_config import ConfigDict
from penstock.repository.config_json import config_to_proto

Tensors = Mapping[str, str] | Sequence[str]


def tensor(name: str, data_type: str = "TYPE_FP32", dims: Sequence[int] = (1,), **more: Any) -> Any:
    """One of the ensemble's own tensors."""
    return {"name": name, "data_type": data_type, "dims": list(dims), **more}


def step(model: str, reads: str, writes: str, **more: Any) -> dict[str, Any]:
    """`step("m", "X=in", "X=out")`: the model's tensor, and the ensemble's."""
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": dict(pair.split("=") for pair in reads.split()),
        "output_map": dict(pair.split("=") for pair in writes.split()),
        **more,
    }


def ensemble(*steps: Any, name: str = "e", **more: Any) -> ConfigDict:
    """From IN to OUT, unless `input` and `output` are given."""
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": 8,
        "input": [tensor("IN")],
        "output": [tensor("OUT")],
        "ensemble_scheduling": {"step": list(steps)},
        **more,
    }


def plain(name: str, **more: Any) -> ConfigDict:
    """A model of X that gives X."""
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": 8,
        "input": [tensor("X")],
        "output": [tensor("X")],
        **more,
    }


def pbtxt(config: ConfigDict) -> str:
    """As config.pbtxt has it."""
    return text_format.MessageToString(config_to_proto(config))
