"""What an engine depends on, as the key that it is kept by; and which TensorRT is installed. TensorRT itself is not
imported."""

from __future__ import annotations

from importlib import metadata
from typing import Final

from penstock.backends import disk_cache
from penstock.backends.tensorrt_options import BuildOptions
from penstock.backends.tensorrt_profiles import Profile

ENGINES: Final = "tensorrt"
TIMINGS: Final = "tensorrt-timings"

_DISTRIBUTIONS: Final = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")


def installed_version() -> str:
    """Of the package; empty: there is none."""
    for name in _DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def engine_key(
    model_digest: str,
    version: str,
    compute_capability: str,
    options: BuildOptions,
    profiles: tuple[Profile, ...],
) -> str:
    """An engine is for one model, TensorRT, kind of GPU, set of options and set of profiles."""
    return disk_cache.key_of(model_digest, version, compute_capability, options, profiles)


def timing_key(version: str, compute_capability: str) -> str:
    """Timings are for one TensorRT and kind of GPU, whatever the model."""
    return disk_cache.key_of(version, compute_capability)
