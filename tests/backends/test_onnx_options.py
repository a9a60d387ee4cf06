"""ONNX Runtime's session options, as Triton's keys set them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_files import load_spec
from penstock.backends.onnx_options import ALLOW_SPINNING, session_options
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict


def parameters(**values: str) -> ConfigDict:
    return {"parameters": {key: {"string_value": value} for key, value in values.items()}}


@pytest.mark.parametrize(
    ("config", "read", "expected"),
    [
        ({}, lambda o: o.intra_op_num_threads, 3),
        (parameters(intra_op_thread_count="2"), lambda o: o.intra_op_num_threads, 2),
        (parameters(inter_op_thread_count="2"), lambda o: o.inter_op_num_threads, 2),
        (parameters(execution_mode="1"), lambda o: o.execution_mode.name, "ORT_PARALLEL"),
        (parameters(enable_mem_arena="0"), lambda o: o.enable_cpu_mem_arena, False),
        ({}, lambda o: o.get_session_config_entry(ALLOW_SPINNING), "0"),
        (
            parameters(**{ALLOW_SPINNING: "1"}),
            lambda o: o.get_session_config_entry(ALLOW_SPINNING),
            "1",
        ),
        ({}, lambda o: o.graph_optimization_level.name, "ORT_ENABLE_ALL"),
        (
            {"optimization": {"graph": {"level": -1}}},
            lambda o: o.graph_optimization_level.name,
            "ORT_ENABLE_BASIC",
        ),
        (
            {"optimization": {"graph": {"level": 2}}},
            lambda o: o.graph_optimization_level.name,
            "ORT_DISABLE_ALL",
        ),
    ],
)
def test_session_options(
    config: ConfigDict, read: Callable[[Any], Any], expected: Any, model_dir: Path
) -> None:
    options = session_options(load_spec(model_dir, config, threads=3))
    assert read(options) == expected


@pytest.mark.parametrize("values", [{"intra_op_thread_count": "many"}, {"execution_mode": "fast"}])
def test_wrong_parameter_is_named(values: dict[str, str], model_dir: Path) -> None:
    with pytest.raises(LoadFailed, match=f"parameter '{next(iter(values))}'.*expected"):
        session_options(load_spec(model_dir, parameters(**values)))
