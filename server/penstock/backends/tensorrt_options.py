"""How an engine is built and run, of a model's `parameters`. Pure: TensorRT is not imported.

`precision`                     of `fp16`, `bf16`, `int8`, `fp8`, those that the builder may choose beside FP32;
                                `typed`: the types that the ONNX file has, which is all there is since TensorRT 11
`max_workspace_size_bytes`      scratch memory of the builder; default: what the GPU has
`builder_optimization_level`    0 to 5; default 3
`profile_min_shapes`, `profile_opt_shapes`, `profile_max_shapes`
                                of inputs with free dims: `NAME:8x16,OTHER:1x3`, without the batch dimension
`optimization.cuda.graphs`      replay what a batch of one shape has queued before
`instance_group[].profile`      the profiles that this instance uses, by number; default: all
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock.backends.parameters import string_parameters
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

PRECISIONS: Final = ("fp16", "bf16", "int8", "fp8")
TYPED: Final = "typed"
TYPED_ONLY_SINCE: Final = 11
"""The major version of TensorRT from which the builder chooses no types."""

DEFAULT_LEVEL: Final = 3
LEVELS: Final = range(6)

_SHAPE: Final = re.compile(r"[1-9][0-9]*(x[1-9][0-9]*)*")

Shapes = Mapping[str, tuple[int, ...]]
"""Input → dims, without the batch dimension."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What an engine depends on beside its model and profiles."""

    precisions: tuple[str, ...] = ()
    typed: bool = False
    workspace_bytes: int | None = None
    level: int = DEFAULT_LEVEL


@dataclass(frozen=True, slots=True)
class FreeDims:
    """The dims that inputs of any size shall be ready for."""

    smallest: Shapes
    usual: Shapes
    largest: Shapes


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What changes from load to load without a new engine."""

    graphs: bool = False
    profiles: tuple[int, ...] = ()
    """Empty: all."""


def build_options(config: ConfigDict) -> BuildOptions:
    """Raises LoadFailed that names the parameter that is wrong."""
    parameters = string_parameters(config)
    words = tuple(
        sorted({w.strip().lower() for w in parameters.get("precision", "").split(",")} - {""})
    )
    unknown = [word for word in words if word not in (*PRECISIONS, TYPED, "fp32")]
    if unknown or (TYPED in words and len(words) > 1):
        raise LoadFailed(
            f"parameter 'precision' is {parameters['precision']!r}, expected some of fp32,"
            f" {', '.join(PRECISIONS)}, or {TYPED} alone"
        )
    return BuildOptions(
        precisions=tuple(word for word in words if word in PRECISIONS),
        typed=TYPED in words,
        workspace_bytes=_number(parameters, "max_workspace_size_bytes", None),
        level=_level(parameters),
    )


def for_version(options: BuildOptions, major: int) -> BuildOptions:
    """What that version of TensorRT builds by. Raises LoadFailed where it can't."""
    if major < TYPED_ONLY_SINCE:
        return options
    if options.precisions:
        raise LoadFailed(
            f"parameter 'precision' is {','.join(options.precisions)}, but TensorRT {major} takes the types of the"
            f" ONNX file; expected {TYPED}, and a file that was converted"
        )
    return BuildOptions((), True, options.workspace_bytes, options.level)


def free_dims(config: ConfigDict) -> FreeDims:
    """Raises LoadFailed that names the parameter that is wrong."""
    parameters = string_parameters(config)
    smallest, usual, largest = (
        _shapes(parameters, f"profile_{which}_shapes") for which in ("min", "opt", "max")
    )
    return FreeDims(smallest, usual, largest)


def run_options(config: ConfigDict) -> RunOptions:
    """Raises LoadFailed that names what is wrong."""
    cuda = (config.get("optimization") or {}).get("cuda") or {}
    numbers: set[int] = set()
    groups: Sequence[Mapping[str, Any]] = config.get("instance_group") or ()
    for index, group in enumerate(groups):
        for text in group.get("profile") or ():
            if not str(text).isdecimal():
                raise LoadFailed(
                    f"instance_group[{index}].profile has {text!r}, expected the number of a profile"
                )
            numbers.add(int(text))
    return RunOptions(bool(cuda.get("graphs")), tuple(sorted(numbers)))


def _level(parameters: Mapping[str, str]) -> int:
    level = _number(parameters, "builder_optimization_level", DEFAULT_LEVEL)
    if level not in LEVELS:
        raise LoadFailed(
            f"parameter 'builder_optimization_level' is {level}, expected {LEVELS[0]} to {LEVELS[-1]}"
        )
    assert level is not None, "it has a default"
    return level


def _number(parameters: Mapping[str, str], key: str, default: int | None) -> int | None:
    text = parameters.get(key)
    if text is None:
        return default
    if not text.strip().isdecimal():
        raise LoadFailed(f"parameter {key!r} is {text!r}, expected a number")
    return int(text)


def _shapes(parameters: Mapping[str, str], key: str) -> Shapes:
    shapes = {}
    for part in filter(None, (part.strip() for part in parameters.get(key, "").split(","))):
        # a name may hold colons, dims don't
        name, _, dims = part.rpartition(":")
        if not name or not _SHAPE.fullmatch(dims):
            raise LoadFailed(f"parameter {key!r} has {part!r}, expected NAME:8x16")
        shapes[name] = tuple(map(int, dims.split("x")))
    return shapes
