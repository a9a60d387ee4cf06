"""NVML as the server asks it, of GPUs that a test makes up. The real one was never asked: see docs/gpu.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from penstock.devices.discovery import Devices, Gpu

GIB = 1 << 30


@dataclass
class FakeGpu:
    """One of them, or a part of one."""

    uuid: str
    name: str = "NVIDIA A100-SXM4-40GB"
    parts: Sequence[FakeGpu | None] | None = None
    """Of a GPU in MIG mode, by their numbers there; None: it is not divided."""
    utilization: int | None = 25
    used_bytes: int = 3 * GIB
    power_mw: int | None = 61_500
    energy_mj: int | None = 7_000_000


class NVMLError(Exception):
    """As NVML's."""


@dataclass
class FakeNvml:
    """All of a machine."""

    gpus: Sequence[FakeGpu] = ()
    no_driver: bool = False
    NVMLError: type[Exception] = NVMLError
    asked: list[str] = field(default_factory=list)
    """UUIDs of which the utilisation was asked."""

    def nvmlInit(self) -> None:
        if self.no_driver:
            raise NVMLError("Driver Not Loaded")

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.86.15"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return str(handle.uuid)

    def nvmlDeviceGetName(self, handle: Any) -> str:
        return str(handle.name)

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        return SimpleNamespace(total=40 * GIB, used=handle.used_bytes)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> tuple[int, int]:
        return 8, 0

    def nvmlDeviceGetMigMode(self, handle: Any) -> tuple[int, int]:
        if handle.name.startswith("Tesla"):
            raise NVMLError("Not Supported")
        return int(handle.parts is not None), 0

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int:
        return len(handle.parts)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any:
        if handle.parts[index] is None:
            raise NVMLError("Not Found")
        return handle.parts[index]

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        self.asked.append(handle.uuid)
        return SimpleNamespace(gpu=self._told(handle.utilization))

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        return self._told(handle.power_mw)

    def nvmlDeviceGetPowerManagementLimit(self, handle: Any) -> int:
        return self._told(handle.power_mw) and 400_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        return self._told(handle.energy_mj)

    def _told(self, value: int | None) -> int:
        if value is None:
            raise NVMLError("Not Supported")
        return value


def gpus(count: int) -> Devices:
    """So many found."""
    return Devices(
        tuple([Gpu(n, f"GPU-{n}", f"Model {n}", 40 * GIB, (8, 0)) for n in range(count)]), ""
    )
