"""OpenVINO's properties from a model's configuration, with the keys of Triton's openvino backend, and one of our own.

`INFERENCE_NUM_THREADS`       default: the instance's share of the cores
`COMPILATION_NUM_THREADS`     is checked, and has no effect: OpenVINO's CPU plugin has no such property
`NUM_STREAMS`                 AUTO, NUMA or a count; default 1: a worker runs one batch at a time
`PERFORMANCE_HINT`            LATENCY (default) or THROUGHPUT
`HINT_BF16`                   YES: floats are computed in BF16
`INFERENCE_PRECISION_HINT`    f32 (default), bf16, f16 or dynamic: the same under OpenVINO's own name
`SKIP_OV_DYNAMIC_BATCHSIZE`   YES: the model is compiled for batches of max_batch_size alone
`ENABLE_BATCH_PADDING`        YES: smaller batches are filled up with zeros then
`RESHAPE_IO_LAYERS`           YES: the model's inputs get the dims of the configuration
`CPU_EXTENSION_PATH`          a library of operators, in the version's folder
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.backends.base import LoadSpec
from penstock.backends.parameters import string_parameters, thread_count
from penstock.errors import LoadFailed

log = logging.getLogger(__name__)

PRECISIONS: Final = ("f32", "bf16", "f16", "dynamic")
HINTS: Final = ("LATENCY", "THROUGHPUT")
STREAMS: Final = ("AUTO", "NUMA")


@dataclass(frozen=True, slots=True)
class Options:
    """What a configuration asks for."""

    properties: Mapping[str, str]
    """Of the compiled model."""
    extension: Path | None
    fixed_batch: bool
    """The model is compiled for batches of max_batch_size alone."""
    padding: bool
    """Smaller ones are filled up."""
    reshape: bool
    """To the dims of the configuration."""


def options_of(spec: LoadSpec) -> Options:
    """Raises LoadFailed that names the parameter that is wrong."""
    given = string_parameters(spec.config)
    if "COMPILATION_NUM_THREADS" in given:
        thread_count(given, "COMPILATION_NUM_THREADS", 0)
        log.warning("parameter 'COMPILATION_NUM_THREADS' has no effect on CPUs")
    return Options(
        properties=_properties(given, spec.threads),
        extension=_extension(given, spec.version_dir),
        fixed_batch=_yes(given, "SKIP_OV_DYNAMIC_BATCHSIZE"),
        padding=_yes(given, "ENABLE_BATCH_PADDING"),
        reshape=_yes(given, "RESHAPE_IO_LAYERS"),
    )


def _properties(given: Mapping[str, str], threads: int) -> dict[str, str]:
    inference = thread_count(given, "INFERENCE_NUM_THREADS", threads)
    precision = "bf16" if _yes(given, "HINT_BF16") else "f32"
    precision = _one_of(given, "INFERENCE_PRECISION_HINT", PRECISIONS, precision)
    properties = {
        "INFERENCE_NUM_THREADS": str(inference),
        "NUM_STREAMS": _streams(given),
        "PERFORMANCE_HINT": _one_of(given, "PERFORMANCE_HINT", HINTS, "LATENCY"),
        "INFERENCE_PRECISION_HINT": precision,
        # pinned threads of several workers would all sit on the first cores
        "ENABLE_CPU_PINNING": "NO",
    }
    if precision == "f32":
        # else the rows of a batch are rounded to 8 bits before matrices of compressed weights
        properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
    return properties


def _streams(given: Mapping[str, str]) -> str:
    text = given.get("NUM_STREAMS", "1").strip().upper()
    if text in STREAMS or (text.isdecimal() and int(text) > 0):
        return text
    raise LoadFailed(
        f"parameter 'NUM_STREAMS' is {given['NUM_STREAMS']!r}, expected a count over 0, AUTO or NUMA"
    )


def _one_of(given: Mapping[str, str], key: str, choices: tuple[str, ...], default: str) -> str:
    text = given.get(key, default).strip()
    found = [choice for choice in choices if choice.lower() == text.lower()]
    if not found:
        raise LoadFailed(f"parameter {key!r} is {text!r}, expected one of {', '.join(choices)}")
    return found[0]


def _yes(given: Mapping[str, str], key: str) -> bool:
    text = given.get(key, "NO").strip().upper()
    if text not in ("YES", "NO"):
        raise LoadFailed(f"parameter {key!r} is {given[key]!r}, expected YES or NO")
    return text == "YES"


def _extension(given: Mapping[str, str], version_dir: Path) -> Path | None:
    text = given.get("CPU_EXTENSION_PATH", "").strip()
    if not text:
        return None
    path = (version_dir / text).resolve()
    if not path.is_relative_to(version_dir.resolve()):
        # only what lies there is verified before it is loaded
        raise LoadFailed(
            f"parameter 'CPU_EXTENSION_PATH' is {text!r}, expected a file in the version's folder"
        )
    if not path.is_file():
        raise LoadFailed(f"parameter 'CPU_EXTENSION_PATH' is {text!r}: there is no {path}")
    return path
