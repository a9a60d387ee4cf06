"""What a run was made with: packages, and the machine."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

import psutil
import torch

VARIABLES: Final = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "NCCL_DEBUG",
    "NCCL_P2P_DISABLE",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    "WORLD_SIZE",
)
"""What of the environment changes how fast and what torch computes. No others: they hold secrets."""


def frozen_packages() -> str:
    """All installed packages, as `pip freeze` lists them."""
    found = {str(each.metadata["Name"]): each.version for each in distributions()}
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found, key=str.lower))


def hardware() -> dict[str, Any]:
    """The machine, and what runs on it, for a JSON file."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "torch": torch.__version__,
        "cpu": {
            "name": _cpu_name(),
            "cores": psutil.cpu_count(logical=False),
            "threads": os.cpu_count(),
            "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": _gpus(),
        "cuda": torch.version.cuda,
        "threads_of_torch": torch.get_num_threads(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    properties = (torch.cuda.get_device_properties(at) for at in range(torch.cuda.device_count()))
    return [
        {
            "name": each.name,
            "memory_bytes": each.total_memory,
            "capability": f"{each.major}.{each.minor}",
        }
        for each in properties
    ]
