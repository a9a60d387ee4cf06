"""Which of ONNX Runtime's execution providers run a model, and with which options: pure, of the configuration and of
what the installed package has.

The keys are those of Triton's onnxruntime backend: `optimization.execution_accelerators` with `tensorrt`, `cuda` and
`openvino`, and the older `parameters` of CUDA.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from penstock.backends.base import LoadSpec
from penstock.backends.batch_sizes import preferred_sizes
from penstock.backends.completion import model_dims
from penstock.backends.parameters import string_parameters
from penstock.backends.ragged import ragged_names
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
OPENVINO: Final = "OpenVINOExecutionProvider"

_PACKAGES: Final = MappingProxyType(
    {CUDA: "onnxruntime-gpu", TENSORRT: "onnxruntime-gpu", OPENVINO: "onnxruntime-openvino"}
)
_WHERE: Final = "optimization.execution_accelerators"
_ACCELERATORS: Final = MappingProxyType({"cpu": ("openvino",), "gpu": ("tensorrt", "cuda")})

_CUDA_PARAMETERS: Final[Mapping[str, Mapping[str, str] | None]] = MappingProxyType(
    {
        "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
        "gpu_mem_limit": None,
        "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
        "do_copy_in_default_stream": {"0": "0", "1": "1"},
    }
)
"""Key of `parameters` → its values and ONNX Runtime's words for them; None: a number of bytes."""

_GRAPHS: Final = ("enable_cuda_graph", "trt_cuda_graph_enable")
"""They need inputs and outputs that never move, and here each batch lies elsewhere."""

_BOOL: Final = MappingProxyType({"1": "True", "true": "True", "0": "False", "false": "False"})
_TENSORRT_RENAMED: Final = MappingProxyType(
    {
        "max_workspace_size_bytes": "trt_max_workspace_size",
        "int8_calibration_table_name": "trt_int8_calibration_table_name",
        "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
    }
)
_TENSORRT_FLAGS: Final = frozenset(
    {
        "int8_use_native_calibration_table",
        "trt_dla_enable",
        "trt_engine_cache_enable",
        "trt_dump_subgraphs",
        "trt_force_sequential_engine_build",
        "trt_context_memory_sharing_enable",
        "trt_layer_norm_fp32_fallback",
        "trt_timing_cache_enable",
        "trt_force_timing_cache",
        "trt_detailed_build_log",
        "trt_build_heuristics_enable",
        "trt_sparsity_enable",
        "trt_dump_ep_context_model",
    }
)
_PRECISIONS: Final = MappingProxyType(
    {
        "FP32": None,
        "FP16": "trt_fp16_enable",
        "BF16": "trt_bf16_enable",
        "INT8": "trt_int8_enable",
    }
)
_CACHES: Final = ("trt_engine_cache", "trt_timing_cache")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What runs a model."""

    providers: tuple[tuple[str, dict[str, str]], ...]
    """The first that can run a node does."""
    fallback: str = ""
    """What was asked for and is not there, for a person; empty: nothing."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the providers, in order."""
        return tuple(name for name, _ in self.providers)

    @property
    def on_gpu(self) -> bool:
        """Inputs and outputs cross to a GPU."""
        return CUDA in self.names


def choose(spec: LoadSpec, available: Collection[str], engines: Path | None) -> Chosen:
    """What runs the model, of the providers that are `available`. `engines`: where TensorRT's are kept; None: nowhere,
    for they would hold what must not come onto a disk in plain.

    Raises LoadFailed that names what is wrong, and what was expected.
    """
    wanted = list(_wanted(spec, engines))
    missing = [name for name, _ in wanted if name not in available]
    there = [(name, options) for name, options in wanted if name in available]
    if CUDA in missing:
        # TensorRT leaves to CUDA what it can't run
        there = []
    reasons = [*_out_of_place(spec), *(f"ONNX Runtime has no {_absent(name)}" for name in missing)]
    return Chosen((*there, (CPU, {})), "; ".join(reasons))


def _absent(name: str) -> str:
    return f"{name} as it is installed; expected the package {_PACKAGES[name]}"


def wants_tensorrt(spec: LoadSpec) -> bool:
    """Whether TensorRT shall run what it can of the model."""
    return spec.device != "cpu" and any(
        name == "tensorrt" for name, _ in _accelerators(spec.config, "gpu")
    )


def _check_names(config: ConfigDict) -> None:
    """Also of those that have no part where the instance runs: a slip is to be seen on the machine that has no GPU."""
    for kind, known in _ACCELERATORS.items():
        for name, _ in _accelerators(config, kind):
            if name not in known:
                raise LoadFailed(
                    f"{_WHERE}.{kind}_execution_accelerator: {name!r}, expected {' or '.join(known)}"
                )


def _wanted(spec: LoadSpec, engines: Path | None) -> Iterator[tuple[str, dict[str, str]]]:
    _check_names(spec.config)
    if spec.device == "cpu":
        for _, parameters in _accelerators(spec.config, "cpu"):
            yield OPENVINO, {"device_type": "CPU", **parameters}
        return
    cuda = dict(_cuda_parameters(spec.config))
    for name, parameters in _accelerators(spec.config, "gpu"):
        if name == "tensorrt":
            profiles = _profiles(spec.config, parameters)
            yield TENSORRT, profiles | _tensorrt_options(parameters, engines)
        else:
            _check_graphs(name, parameters)
            cuda |= parameters
    # the worker sees one GPU
    yield CUDA, {"device_id": "0", **cuda}


def _out_of_place(spec: LoadSpec) -> Iterator[str]:
    """Accelerators for GPUs have no part on a CPU; that is worth a word unless CPUs were asked for by name."""
    groups = spec.config.get("instance_group") or ()
    if spec.device != "cpu" or any(group.get("kind") == "KIND_CPU" for group in groups):
        return
    for name, _ in _accelerators(spec.config, "gpu"):
        yield f"{_WHERE} asks for {name} on a GPU, and this instance runs on the CPU"


def _accelerators(config: ConfigDict, kind: str) -> Iterator[tuple[str, dict[str, str]]]:
    accelerators = (config.get("optimization") or {}).get("execution_accelerators") or {}
    for each in accelerators.get(f"{kind}_execution_accelerator") or ():
        yield each.get("name") or "", dict(each.get("parameters") or {})


def _cuda_parameters(config: ConfigDict) -> Iterator[tuple[str, str]]:
    given = string_parameters(config)
    for key, values in _CUDA_PARAMETERS.items():
        if key not in given:
            continue
        text = given[key].strip()
        if values is None and text.isdecimal():
            yield key, text
        elif values is not None and text in values:
            yield key, values[text]
        else:
            expected = "a number of bytes" if values is None else _choice(values)
            raise LoadFailed(f"parameter {key!r} is {text!r}, expected {expected}")


def _choice(values: Mapping[str, str]) -> str:
    return " or ".join(key if key == word else f"{key} ({word})" for key, word in values.items())


def _check_graphs(name: str, parameters: Mapping[str, str]) -> None:
    for key in _GRAPHS:
        if key in parameters and _bool(key, parameters[key]) == "True":
            raise LoadFailed(
                f"{_WHERE}: {key} of {name} is on, but ONNX Runtime can't replay CUDA graphs for batches that"
                " lie elsewhere each time; expected it off (the tensorrt backend has them)"
            )


def _tensorrt_options(given: Mapping[str, str], engines: Path | None) -> dict[str, str]:
    _check_graphs("tensorrt", given)
    options = {"device_id": "0", **_caches(given, engines)}
    for key, text in given.items():
        if key == "precision_mode":
            options |= _precision(text)
        elif key in _TENSORRT_FLAGS:
            options[_TENSORRT_RENAMED.get(key, key)] = _bool(key, text)
        elif key.startswith("trt_") or key in _TENSORRT_RENAMED:
            options[_TENSORRT_RENAMED.get(key, key)] = text
        else:
            known = ", ".join(("precision_mode", *_TENSORRT_RENAMED, "trt_…"))
            raise LoadFailed(f"{_WHERE}: tensorrt has no {key!r}, expected one of {known}")
    return options


def _profiles(config: ConfigDict, given: Mapping[str, str]) -> dict[str, str]:
    """One for all batch sizes, where dims are known and the configuration gives none: else TensorRT builds an engine
    anew when a larger batch than before comes."""
    inputs = config.get("input") or ()
    sizes = [tuple(model_dims(tensor)) for tensor in inputs]
    joined = config.get("batch_input") or ragged_names(config)
    free = not sizes or any(size < 1 for dims in sizes for size in dims)
    most = config.get("max_batch_size") or 0
    if not most or joined or free or any(key.startswith("trt_profile_") for key in given):
        return {}
    usual = max(preferred_sizes(config), default=most)
    return {
        f"trt_profile_{word}_shapes": ",".join(
            f"{tensor['name']}:{'x'.join(map(str, (rows, *dims)))}"
            for tensor, dims in zip(inputs, sizes, strict=True)
        )
        for word, rows in (("min", 1), ("opt", usual), ("max", most))
    }


def _caches(given: Mapping[str, str], engines: Path | None) -> dict[str, str]:
    if engines is not None:
        return {
            option: value
            for cache in _CACHES
            for option, value in ((f"{cache}_enable", "True"), (f"{cache}_path", str(engines)))
        }
    asked = [key for key in given if key.startswith((*_CACHES, "trt_ep_context", "trt_dump"))]
    if asked:
        raise LoadFailed(
            f"{_WHERE}: {asked[0]} can't be had, for the model is encrypted:"
            " its engines may not come onto a disk"
        )
    return {}


def _precision(text: str) -> dict[str, str]:
    if text not in _PRECISIONS:
        expected = " or ".join(_PRECISIONS)
        raise LoadFailed(f"{_WHERE}: precision_mode is {text!r}, expected {expected}")
    flag = _PRECISIONS[text]
    return {} if flag is None else {flag: "True"}


def _bool(key: str, text: Any) -> str:
    found = _BOOL.get(str(text).strip().lower())
    if found is None:
        raise LoadFailed(f"{_WHERE}: {key} is {text!r}, expected 0, 1, false or true")
    return found
