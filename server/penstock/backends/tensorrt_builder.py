"""Builds an engine of an ONNX file, or takes the one that was built before."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.backends import disk_cache
from penstock.backends.base import LoadSpec
from penstock.backends.completion import complete
from penstock.backends.tensorrt_errors import Messages, TensorRtUnusable
from penstock.backends.tensorrt_key import ENGINES, TIMINGS, engine_key, timing_key
from penstock.backends.tensorrt_options import BuildOptions, build_options, for_version, free_dims
from penstock.backends.tensorrt_profiles import Profile, profiles
from penstock.backends.tensorrt_tensors import network_signature
from penstock.model_digest import folder_digest

log = logging.getLogger(__name__)

_FLAGS: Final = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8", "fp8": "FP8"}


@dataclass(frozen=True, slots=True)
class Toolkit:
    """TensorRT on one GPU."""

    trt: Any
    """The module."""
    logger: Any
    messages: Messages
    compute_capability: str

    @property
    def version(self) -> str:
        """Of TensorRT."""
        return str(self.trt.__version__)

    @property
    def major(self) -> int:
        """Its first part."""
        return int(self.version.partition(".")[0])


def built_plan(tools: Toolkit, spec: LoadSpec, onnx: Path) -> bytes:
    """The serialised engine of `onnx`, from the disk if it lies there.

    Raises LoadFailed for what the configuration says wrong, TensorRtUnusable for what TensorRT can't do.
    """
    options = for_version(build_options(spec.config), tools.major)
    builder = tools.trt.Builder(tools.logger)
    network = builder.create_network(_creation_flags(tools.trt, options))
    # the parser must live as long as the network, whose weights are its own
    parser = _parsed(tools, network, onnx)
    chosen = _profiles(spec, network)
    key = engine_key(
        folder_digest(onnx.parent), tools.version, tools.compute_capability, options, chosen
    )
    kept = not disk_cache.holds_secrets(spec.model_dir)
    plan = disk_cache.get(ENGINES, key) if kept else None
    if plan is None:
        plan = _build(tools, builder, network, options, chosen, spec.model_name)
        if kept:
            disk_cache.put(ENGINES, key, plan)
    del parser
    return plan


def _creation_flags(trt: Any, options: BuildOptions) -> int:
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if options.typed else 0


def _parsed(tools: Toolkit, network: Any, onnx: Path) -> Any:
    parser = tools.trt.OnnxParser(network, tools.logger)
    if not parser.parse_from_file(str(onnx)):
        said = [" ".join(parser.get_error(i).desc().split()) for i in range(parser.num_errors)]
        reason = "; ".join(said) or tools.messages.reason("it doesn't say why")
        raise TensorRtUnusable(f"TensorRT {tools.version} can't read {onnx.name}: {reason}")
    return parser


def _profiles(spec: LoadSpec, network: Any) -> tuple[Profile, ...]:
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    of_values = [tensor.name for tensor in inputs if tensor.is_shape_tensor]
    if of_values:
        raise TensorRtUnusable(
            f"the values of input {of_values[0]!r} are shapes, whose range the builder would have to know"
        )
    config = complete(spec.config, network_signature(network))
    shapes = {tensor.name: tuple(tensor.shape) for tensor in inputs}
    return profiles(config, shapes, free_dims(spec.config))


def _build(
    tools: Toolkit,
    builder: Any,
    network: Any,
    options: BuildOptions,
    chosen: tuple[Profile, ...],
    name: str,
) -> bytes:
    log.info("model %s: TensorRT builds an engine, which may take minutes", name)
    started = time.monotonic()
    config = _builder_config(tools.trt, builder, options)
    for profile in chosen:
        _add(builder, config, profile)
    timings = timing_key(tools.version, tools.compute_capability)
    cache = config.create_timing_cache(disk_cache.get(TIMINGS, timings) or b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = tools.messages.reason("it doesn't say why")
        raise TensorRtUnusable(f"TensorRT {tools.version} can't build an engine: {reason}")
    cache = config.get_timing_cache()
    if cache is not None:
        _keep_timings(timings, bytes(cache.serialize()))
    log.info("model %s: the engine took %.1f s", name, time.monotonic() - started)
    return bytes(plan)


def _keep_timings(key: str, content: bytes) -> None:
    """They hold no weights. In place of those before, which are among them, or are of an engine built meanwhile."""
    before = disk_cache.find(TIMINGS, key)
    kept = disk_cache.put(TIMINGS, key, content)
    if before is not None and kept is not None and before != kept:
        before.unlink(missing_ok=True)


def _builder_config(trt: Any, builder: Any, options: BuildOptions) -> Any:
    config = builder.create_builder_config()
    config.builder_optimization_level = options.level
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    for flag in _flags(trt, options):
        config.set_flag(flag)
    return config


def _flags(trt: Any, options: BuildOptions) -> Iterator[Any]:
    for precision in options.precisions:
        yield getattr(trt.BuilderFlag, _FLAGS[precision])


def _add(builder: Any, config: Any, profile: Profile) -> None:
    made = builder.create_optimization_profile()
    for name, sizes in profile.inputs:
        made.set_shape(name, sizes.smallest, sizes.usual, sizes.largest)
    if config.add_optimization_profile(made) < 0:
        raise TensorRtUnusable(f"TensorRT doesn't take the profile {profile.inputs}")
