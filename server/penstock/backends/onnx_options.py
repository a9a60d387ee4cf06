"""ONNX Runtime's session options from a model's configuration, with the keys of Triton's onnxruntime backend.

`optimization.graph.level`        -1 basic, 1 basic and extended, 2 none, else all
`intra_op_thread_count`           threads within an operator; default: the instance's share of the cores
`inter_op_thread_count`           threads across operators, in parallel mode
`execution_mode`                  0 sequential (default), 1 parallel
`enable_mem_arena`, `enable_mem_pattern`   0 or 1
`session.*`                       handed to ONNX Runtime as it is
"""

from __future__ import annotations

from typing import Any, Final

import onnxruntime as ort

from penstock.backends.base import LoadSpec
from penstock.backends.parameters import flag, string_parameters, thread_count
from penstock.model_config import ConfigDict

ALLOW_SPINNING: Final = "session.intra_op.allow_spinning"

_GRAPH_LEVELS: Final = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_LOG_ERRORS_ONLY: Final = 3


def session_options(spec: LoadSpec) -> Any:
    """The `onnxruntime.SessionOptions` of one instance. Raises LoadFailed that names the parameter that is wrong."""
    options = ort.SessionOptions()
    parameters = string_parameters(spec.config)
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.intra_op_num_threads = thread_count(parameters, "intra_op_thread_count", spec.threads)
    options.inter_op_num_threads = thread_count(parameters, "inter_op_thread_count", spec.threads)
    if flag(parameters, "execution_mode", False):
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = flag(parameters, "enable_mem_arena", True)
    options.enable_mem_pattern = flag(parameters, "enable_mem_pattern", True)
    options.graph_optimization_level = _graph_level(spec.config)
    # Spinning threads take the cores that the gateway, the clients and other workers need.
    options.add_session_config_entry(ALLOW_SPINNING, "0")
    for key, value in parameters.items():
        if key.startswith("session."):
            options.add_session_config_entry(key, value)
    return options


def _graph_level(config: ConfigDict) -> Any:
    graph = (config.get("optimization") or {}).get("graph") or {}
    level = graph.get("level", 0)
    return _GRAPH_LEVELS.get(level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
