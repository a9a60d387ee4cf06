"""Which backends can use a GPU with the packages that are installed here. Found without importing them: the gateway
asks, and imports none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class GpuBackend:
    """A backend that can use GPUs."""

    package: str = ""
    """Which it needs for that; empty: it decides itself what it can do."""
    file: str = ""
    """In the package's folder, only where that was built for CUDA."""
    advice: str = ""
    """What to install."""
    default: bool = True
    """Models whose configuration says nothing of instances run on GPUs."""


GPU_BACKENDS: Final[Mapping[str, GpuBackend]] = MappingProxyType(
    {
        "onnxruntime": GpuBackend(
            "onnxruntime",
            "capi/libonnxruntime_providers_cuda.so",
            "the package onnxruntime-gpu, in onnxruntime's place, has it",
        ),
        "torch": GpuBackend(
            "torch",
            "lib/libtorch_cuda.so",
            "a build of torch for CUDA, such as torch==2.13.0+cu130",
        ),
        # falls back by itself, and says so
        "tensorrt": GpuBackend(),
        # as in Triton: a Python model is not put onto GPUs unless its configuration asks
        "python": GpuBackend(default=False),
        "mlflow": GpuBackend(default=False),
    }
)
"""All others run on the CPU."""


def gpu_problem(backend: str, backends: Mapping[str, GpuBackend] = GPU_BACKENDS) -> str:
    """Why the backend can't use a GPU here; empty: it can."""
    known = backends.get(backend)
    if known is None:
        return f"backend '{backend}' runs on the CPU only"
    if not known.package:
        return ""
    if _has(known):
        return ""
    return (
        f"backend '{backend}' can't use a GPU here: the package {known.package} is not there, or not built for CUDA"
        f" ({known.advice})"
    )


def gpu_by_default(backend: str) -> bool:
    """Whether models of the backend that ask for nothing run on GPUs, where it can use them."""
    known = GPU_BACKENDS.get(backend)
    return known is not None and known.default


def _has(known: GpuBackend) -> bool:
    spec = find_spec(known.package)
    places = [] if spec is None else spec.submodule_search_locations or []
    return any((Path(place) / known.file).exists() for place in places)
