"""Where the instances of a model version run, by its configuration, its backend, and the server's GPUs."""

from __future__ import annotations

from pathlib import Path

from penstock.backends.gpu_support import GPU_BACKENDS, gpu_by_default, gpu_problem
from penstock.backends.registry import backend_for
from penstock.devices.discovery import Devices
from penstock.devices.placement import GpuUse, Placement, placements
from penstock.model_config import ConfigDict


def placed(config: ConfigDict, version_dir: Path, devices: Devices) -> tuple[Placement, ...]:
    """One for each instance. Raises LoadFailed where a GPU is asked for that can't be had."""
    backend = config.get("backend") or ""
    if backend not in GPU_BACKENDS:
        # it may have another name, or be told by the model's files
        backend = backend_for(config, version_dir)
    use = GpuUse(gpu_problem(backend), default=gpu_by_default(backend))
    return placements(config, devices, use)
