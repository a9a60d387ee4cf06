"""What a configuration asks for in vain: pure, of a configuration with all its defaults."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from math import prod
from types import MappingProxyType
from typing import Any, Final

from penstock.backends.registry import ALIASES, PLATFORMS
from penstock.config import Settings
from penstock.image_config import PREFIX as IMAGE_PREFIX
from penstock.model_config import ConfigDict
from penstock.padding_config import PREFIX
from penstock.repository.config_check import Problem
from penstock.repository.response_cache import cache_obstacle

Check = Callable[[ConfigDict], Iterator[Problem]]

OWN_PARAMETERS: Final = ("slo_p99_ms", "execution_timeout_ms")
ONNX_PARAMETERS: Final = (
    "intra_op_thread_count",
    "inter_op_thread_count",
    "execution_mode",
    "enable_mem_arena",
    "enable_mem_pattern",
    "cudnn_conv_algo_search",
    "gpu_mem_limit",
    "arena_extend_strategy",
    "do_copy_in_default_stream",
)
TENSORRT_PARAMETERS: Final = (
    "precision",
    "max_workspace_size_bytes",
    "builder_optimization_level",
    "profile_min_shapes",
    "profile_opt_shapes",
    "profile_max_shapes",
)
MLFLOW_PARAMETERS: Final = ("mlflow_flavor", "mlflow_requirements", "mlflow_inputs")
OPENVINO_PARAMETERS: Final = (
    "INFERENCE_NUM_THREADS",
    "COMPILATION_NUM_THREADS",
    "NUM_STREAMS",
    "PERFORMANCE_HINT",
    "HINT_BF16",
    "INFERENCE_PRECISION_HINT",
    "SKIP_OV_DYNAMIC_BATCHSIZE",
    "ENABLE_BATCH_PADDING",
    "RESHAPE_IO_LAYERS",
    "CPU_EXTENSION_PATH",
)
TORCH_PARAMETERS: Final = (
    "intra_op_thread_count",
    "inter_op_thread_count",
    "INTRA_OP_THREAD_COUNT",
    "INTER_OP_THREAD_COUNT",
    "INFERENCE_MODE",
    "DISABLE_OPTIMIZED_EXECUTION",
    "ENABLE_JIT_EXECUTOR",
    "ENABLE_JIT_PROFILING",
    "ENABLE_TENSOR_FUSER",
    "DISABLE_CUDNN",
    "ENABLE_CACHE_CLEANING",
    "ENABLE_WEIGHT_SHARING",
    "channels_last",
    "autocast",
    "model_class",
    "cuda_graphs",
    "cuda_graphs_max",
)
SESSION: Final = "session."
OF_BACKEND: Final = MappingProxyType(
    {
        "onnxruntime": ONNX_PARAMETERS,
        "mlflow": MLFLOW_PARAMETERS,
        "openvino": OPENVINO_PARAMETERS,
        "torch": TORCH_PARAMETERS,
        # ONNX Runtime may run it in TensorRT's place
        "tensorrt": (*TENSORRT_PARAMETERS, *ONNX_PARAMETERS),
    }
)
LIKE_ONE_OF_OURS: Final = 0.8
"""How alike a parameter of a model's own code may be to one of ours before it is taken for a slip of the pen."""

CACHE_FLAG: Final = "--cache-config=local,size=BYTES (PENSTOCK_CACHE_CONFIG)"
LIMIT_FLAG: Final = "--rate-limit=execution_count (PENSTOCK_RATE_LIMIT)"

_Path = tuple[str, ...]

READ_ONLY: Final[Sequence[tuple[_Path, str]]] = (
    (("model_repository_agents",), "there are no repository agents"),
    (("model_operations",), "no libraries are loaded for a model"),
    (("cc_model_filenames",), "the model file is the same for all compute capabilities"),
    (("instance_group", "*", "secondary_devices"), "there are no secondary devices"),
    (("instance_group", "*", "passive"), "all instances are used"),
    (("optimization", "priority"), "models run without priorities among them"),
    (("optimization", "cuda", "busy_wait_events"), "the stream is waited for"),
    (("optimization", "cuda", "graph_spec"), "each shape is captured when it comes again"),
    (("optimization", "cuda", "output_copy_stream"), "outputs are copied on the stream that runs"),
    (("optimization", "input_pinned_memory"), "it is for GPUs"),
    (("optimization", "output_pinned_memory"), "it is for GPUs"),
    (("optimization", "eager_batching"), "batches are gathered when a worker is free"),
)
"""Keys that Triton has, and that are accepted without effect. The path's `*` is any position."""

ONLY_FOR: Final[Sequence[tuple[_Path, tuple[str, ...]]]] = (
    (("instance_group", "*", "profile"), ("tensorrt",)),
    (("optimization", "cuda", "graphs"), ("tensorrt", "torch")),
    (("optimization", "execution_accelerators"), ("onnxruntime",)),
)
"""Keys that only some backends act on."""


def config_warnings(config: ConfigDict, *, has_class: bool = False) -> Iterator[Problem]:
    """All of them, by path. `has_class`: code of the model's own may read parameters that are none of ours."""
    for check in CHECKS:
        yield from check(config)
    yield from _parameters(config, has_class)


def unset(config: ConfigDict, settings: Settings) -> Iterator[Problem]:
    """What has no effect with these settings of the server."""
    cached = config.get("response_cache", {}).get("enable") and not cache_obstacle(config)
    if cached and not settings.cache_config:
        yield Problem("response_cache", f"has no effect without {CACHE_FLAG}")
    if settings.rate_limit == "off":
        for where in _given(config, ("instance_group", "*", "rate_limiter", "resources")):
            yield Problem(where, f"has no effect without {LIMIT_FLAG}")


def _read_only(config: ConfigDict) -> Iterator[Problem]:
    for path, why in READ_ONLY:
        for where in _given(config, path):
            yield Problem(where, f"has no effect: {why}")


def _of_backends(config: ConfigDict) -> Iterator[Problem]:
    """What only some backends act on; those that the configuration leaves to the files are not known here."""
    backend = _backend(config)
    for path, backends in ONLY_FOR:
        if backend and backend not in backends:
            for where in _given(config, path):
                yield Problem(where, f"has no effect: it is for {' and '.join(backends)}")


def _response_cache(config: ConfigDict) -> Iterator[Problem]:
    if config.get("response_cache", {}).get("enable") and (why := cache_obstacle(config)):
        yield Problem("response_cache", f"has no effect: {why}")


def _given(value: Any, path: _Path, where: str = "") -> Iterator[str]:
    """The places that fit the path and hold something else than a default."""
    if not path:
        if value not in (None, False, 0, "", [], {}, "PRIORITY_DEFAULT"):
            yield where
        return
    key, *rest = path
    if key == "*":
        for index, each in enumerate(value or ()):
            yield from _given(each, tuple(rest), f"{where}[{index}]")
    elif isinstance(value, dict) and key in value:
        yield from _given(value[key], tuple(rest), f"{where}.{key}" if where else key)


def _ragged(config: ConfigDict) -> Iterator[Problem]:
    # where inputs are left to the model's files, max_batch_size is too
    if config["max_batch_size"] <= 0:
        for where in _given(config, ("input", "*", "allow_ragged_batch")):
            yield Problem(where, "has no effect: max_batch_size is 0, so requests run alone")


def _unbatched(config: ConfigDict) -> Iterator[Problem]:
    batching = config.get("dynamic_batching")
    if batching is None or config["max_batch_size"] > 0:
        return
    why = "has no effect: max_batch_size is 0, so requests run alone"
    keys = [
        key for key in ("preferred_batch_size", "max_queue_delay_microseconds") if batching[key]
    ]
    for key in keys:
        yield Problem(f"dynamic_batching.{key}", why)
    others = ("preserve_ordering", "priority_levels", "default_queue_policy")
    if not keys and not any(batching.get(key) for key in others):
        yield Problem("dynamic_batching", why)


def _priorities(config: ConfigDict) -> Iterator[Problem]:
    batching = config.get("dynamic_batching")
    if batching is None:
        return
    if not batching["priority_levels"]:
        for key in ("default_priority_level", "priority_queue_policy"):
            if batching[key]:
                yield Problem(f"dynamic_batching.{key}", "has no effect without priority_levels")


def _queue_policy(config: ConfigDict) -> Iterator[Problem]:
    batching = config.get("dynamic_batching")
    if batching is None:
        return
    policies = {"default_queue_policy": batching.get("default_queue_policy") or {}}
    for level, policy in batching["priority_queue_policy"].items():
        policies[f"priority_queue_policy[{level!r}]"] = policy
    for name, policy in policies.items():
        if policy.get("default_timeout_microseconds"):
            continue
        path = f"dynamic_batching.{name}"
        delays = policy.get("timeout_action") == "DELAY"
        if policy.get("allow_timeout_override") and not delays:
            text = "has no effect without default_timeout_microseconds: clients' time-outs hold"
            yield Problem(f"{path}.allow_timeout_override", text)
        elif delays and not policy.get("allow_timeout_override"):
            text = (
                "has no effect without default_timeout_microseconds or allow_timeout_override:"
                " nobody is ever late"
            )
            yield Problem(f"{path}.timeout_action", text)


def _ensemble(config: ConfigDict) -> Iterator[Problem]:
    if "ensemble_scheduling" not in config and config["platform"] != "ensemble":
        return
    # the schedulers exclude each other, and instances are refused
    if config.get("optimization"):
        yield Problem("optimization", "has no effect on an ensemble: its steps have their own")


def _objective(config: ConfigDict) -> Iterator[Problem]:
    parameters = config["parameters"]
    if "slo_p99_ms" not in parameters:
        return
    path = "parameters['slo_p99_ms']"
    if "sequence_batching" in config:
        text = (
            "chooses no batches with sequence_batching; it only bounds how long requests may take"
        )
        yield Problem(path, text)
    delay_us = (config.get("dynamic_batching") or {}).get("max_queue_delay_microseconds", 0)
    try:
        objective_us = 1000 * float(parameters["slo_p99_ms"].get("string_value", ""))
    except ValueError:
        return
    if delay_us and delay_us >= objective_us:
        text = (
            f"is over before max_queue_delay_microseconds ({delay_us}) is: requests wait too long"
        )
        yield Problem(path, text)


def _parameters(config: ConfigDict, has_class: bool) -> Iterator[Problem]:
    backend = _backend(config)
    onnx = backend in ("onnxruntime", "tensorrt")
    own = OF_BACKEND.get(backend)
    lenient = has_class or not own
    known = [*OWN_PARAMETERS, *(own or ())]
    in_lower_case = {name.lower(): name for name in known}
    for key in config["parameters"]:
        # those of padding and images are checked when they are read
        if (
            key in known
            or key.startswith((PREFIX, IMAGE_PREFIX))
            or (onnx and key.startswith(SESSION))
        ):
            continue
        # the parameters of a model's code are its own, but for what looks like one of ours
        cutoff = LIKE_ONE_OF_OURS if lenient else 0.6
        near = difflib.get_close_matches(key.lower(), in_lower_case, 1, cutoff)
        if near:
            yield Problem(
                f"parameters[{key!r}]", f"is not known; did you mean {in_lower_case[near[0]]!r}?"
            )
        elif not lenient:
            expected = ", ".join([*known, "session.…"] if onnx else known)
            yield Problem(f"parameters[{key!r}]", f"has no effect; known are {expected}")


def _platform(config: ConfigDict) -> Iterator[Problem]:
    backend, platform = ALIASES.get(config["backend"], config["backend"]), config["platform"]
    same = PLATFORMS.get(platform, platform)
    if backend and platform and same != backend:
        yield Problem("platform", f"is {platform!r} and has no effect: backend is {backend!r}")


def _backend(config: ConfigDict) -> str:
    """Its name among ours; empty where the files tell it."""
    backend, platform = config["backend"], config["platform"]
    return ALIASES.get(backend, backend) or PLATFORMS.get(platform, platform)


CHECKS: Final[Sequence[Check]] = (
    _read_only,
    _of_backends,
    _ragged,
    _response_cache,
    _unbatched,
    _priorities,
    _queue_policy,
    _ensemble,
    _objective,
    _platform,
)


def label_count(dims: Sequence[int]) -> int:
    """How many classes an output of those dims has; 0: that is not fixed."""
    return 0 if -1 in dims else prod(dims)
