"""What a configuration's parameters say to the torch backend: Triton's, in capitals, and our own.

`INTRA_OP_THREAD_COUNT`         threads within an operator; default: the instance's share of the cores
`INTER_OP_THREAD_COUNT`         threads across operators; default 1
`INFERENCE_MODE`                true (default): torch.inference_mode; false: torch.no_grad
`DISABLE_OPTIMIZED_EXECUTION`, `ENABLE_JIT_EXECUTOR`, `ENABLE_JIT_PROFILING`, `ENABLE_TENSOR_FUSER`   of TorchScript
`DISABLE_CUDNN`                 run without cuDNN
`ENABLE_CACHE_CLEANING`         give the GPU's unused memory back after each batch
`ENABLE_WEIGHT_SHARING`         refused: each instance is a process
`channels_last`                 0 (default), 1, auto: inputs and weights of four dimensions as NHWC
`autocast`                      0 (default), bf16, fp16, auto: in which smaller datatype to compute
`model_class`                   of a state dict: the name of its class in model.py
`cuda_graphs`, `cuda_graphs_max`   0 or 1 (default: what `optimization.cuda.graphs` says); how many at most
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock.backends.parameters import string_parameters, thread_count
from penstock.backends.torch_buckets import MAX_GRAPHS
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

AUTO: Final = "auto"
OFF: Final = "0"
_SWITCH: Final = {"1": True, "true": True, "0": False, "false": False}
_AUTOCAST: Final = (OFF, "bf16", "fp16", AUTO)
_CHANNELS_LAST: Final = (OFF, "1", AUTO)


@dataclass(frozen=True, slots=True)
class Options:
    """All parameters of one model, checked."""

    intra_op_threads: int
    inter_op_threads: int
    inference_mode: bool = True
    optimized_execution: bool = True
    jit_executor: bool | None = None
    """None: as torch has it."""
    jit_profiling: bool | None = None
    tensor_fuser: bool | None = None
    cudnn: bool = True
    cache_cleaning: bool = False
    channels_last: str = OFF
    autocast: str = OFF
    model_class: str = ""
    cuda_graphs: bool = False
    max_graphs: int = MAX_GRAPHS


def read_options(config: ConfigDict, threads: int) -> Options:
    """Raises LoadFailed that names the parameter that is wrong."""
    given = string_parameters(config)
    if _switch(given, "ENABLE_WEIGHT_SHARING", False):
        raise LoadFailed(
            "parameter 'ENABLE_WEIGHT_SHARING' is true, but each instance is a process with weights of its own;"
            " leave it out, and have one instance with several threads where memory is short"
        )
    options = Options(
        intra_op_threads=_threads(given, "INTRA_OP_THREAD_COUNT", threads),
        inter_op_threads=_threads(given, "INTER_OP_THREAD_COUNT", 1),
        inference_mode=_switch(given, "INFERENCE_MODE", True),
        optimized_execution=not _switch(given, "DISABLE_OPTIMIZED_EXECUTION", False),
        jit_executor=_maybe(given, "ENABLE_JIT_EXECUTOR"),
        jit_profiling=_maybe(given, "ENABLE_JIT_PROFILING"),
        tensor_fuser=_maybe(given, "ENABLE_TENSOR_FUSER"),
        cudnn=not _switch(given, "DISABLE_CUDNN", False),
        cache_cleaning=_switch(given, "ENABLE_CACHE_CLEANING", False),
        channels_last=_one_of(given, "channels_last", _CHANNELS_LAST),
        autocast=_one_of(given, "autocast", _AUTOCAST),
        model_class=given.get("model_class", "").strip(),
        cuda_graphs=_switch(given, "cuda_graphs", _asks_for_graphs(config)),
        max_graphs=_count(given, "cuda_graphs_max", MAX_GRAPHS),
    )
    _check_together(options, config)
    return options


def _asks_for_graphs(config: ConfigDict) -> bool:
    """As Triton does it."""
    cuda = (config.get("optimization") or {}).get("cuda") or {}
    return bool(cuda.get("graphs"))


def _check_together(options: Options, config: ConfigDict) -> None:
    # that max_batch_size is 0 may still change while the model fills its configuration in
    uneven = config.get("batch_input") or any(
        each.get("allow_ragged_batch") for each in config.get("input") or ()
    )
    if options.cuda_graphs and uneven:
        raise LoadFailed(
            "parameter 'cuda_graphs' is 1, but a graph is for inputs of one shape, and the model has ragged inputs"
            " or batch_input; expected 0"
        )


def _threads(given: Mapping[str, str], key: str, default: int) -> int:
    """Also under onnxruntime's name, in small letters. 0 is one a core in both."""
    count = thread_count(given, key if key in given else key.lower(), default)
    return count or os.cpu_count() or 1


def _switch(given: Mapping[str, str], key: str, default: bool) -> bool:
    text = given.get(key)
    if text is None:
        return default
    if text.strip().lower() not in _SWITCH:
        raise LoadFailed(f"parameter {key!r} is {text!r}, expected true or false")
    return _SWITCH[text.strip().lower()]


def _maybe(given: Mapping[str, str], key: str) -> bool | None:
    return _switch(given, key, False) if key in given else None


def _one_of(given: Mapping[str, str], key: str, known: tuple[str, ...]) -> str:
    text = given.get(key, OFF).strip().lower()
    text = {"true": "1", "false": OFF}.get(text, text)
    if text not in known:
        raise LoadFailed(f"parameter {key!r} is {given[key]!r}, expected one of {', '.join(known)}")
    return text


def _count(given: Mapping[str, str], key: str, default: int) -> int:
    text = given.get(key)
    if text is None:
        return default
    if not text.strip().isdecimal() or not int(text):
        raise LoadFailed(f"parameter {key!r} is {text!r}, expected a count, 1 at least")
    return int(text)
