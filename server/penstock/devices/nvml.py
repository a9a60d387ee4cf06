"""What Penstock needs of NVML, NVIDIA's library that tells what GPUs there are and what they do."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

Handle = Any
"""NVML's own, of a device."""


class Nvml(Protocol):
    """The functions of the module `pynvml` (package `nvidia-ml-py`) that are used here, under their names there."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None:
        """Connect to the driver. Raises NVMLError without one."""
        ...

    def nvmlSystemGetDriverVersion(self) -> str:
        """Such as 570.86.15."""
        ...

    def nvmlDeviceGetCount(self) -> int:
        """Physical GPUs that this process may use, in the order of the PCI bus."""
        ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle:
        """Of a physical GPU."""
        ...

    def nvmlDeviceGetUUID(self, handle: Handle) -> str:
        """GPU-…, or MIG-… of a part."""
        ...

    def nvmlDeviceGetName(self, handle: Handle) -> str:
        """Such as NVIDIA A100-SXM4-80GB."""
        ...

    def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> Any:
        """`total` and `used`, in bytes."""
        ...

    def nvmlDeviceGetCudaComputeCapability(self, handle: Handle) -> tuple[int, int]:
        """(9, 0) of a Hopper."""
        ...

    def nvmlDeviceGetMigMode(self, handle: Handle) -> tuple[int, int]:
        """Whether the GPU is divided (MIG): now, and after the next reset. Raises NVMLError where it never is."""
        ...

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Handle) -> int:
        """How many parts it can have."""
        ...

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Handle, index: int) -> Handle:
        """Of one of them. Raises NVMLError where there is none of that number."""
        ...

    def nvmlDeviceGetUtilizationRates(self, handle: Handle) -> Any:
        """`gpu`, in percent."""
        ...

    def nvmlDeviceGetPowerUsage(self, handle: Handle) -> int:
        """In milliwatts."""
        ...

    def nvmlDeviceGetPowerManagementLimit(self, handle: Handle) -> int:
        """In milliwatts."""
        ...

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Handle) -> int:
        """Since the driver was loaded, in millijoules."""
        ...


def load_nvml() -> Nvml:
    """The real one, imported now. Raises ImportError where its package is not there."""
    return cast(Nvml, import_module("pynvml"))
