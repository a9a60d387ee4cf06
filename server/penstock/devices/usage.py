"""What the server's GPUs do, read from NVML when somebody asks, never in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from penstock.devices.discovery import Gpu, Inventory, handles_of
from penstock.devices.nvml import Handle, Nvml

MAX_AGE_NS: Final = 100_000_000
"""What was read within this time is not read again, however many scrape."""


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """One GPU at one moment. None: NVML does not tell it of this one."""

    uuid: str
    utilization: float | None = None
    """Share of the time in which a kernel ran, 0 to 1."""
    memory_total_bytes: float | None = None
    memory_used_bytes: float | None = None
    power_usage_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    """Since `UsageReader.read` was called first."""


class UsageReader:
    """Reads all GPUs of an inventory. Usable from any thread; takes up to some milliseconds a GPU."""

    def __init__(self, inventory: Inventory, max_age_ns: int = MAX_AGE_NS) -> None:
        self._inventory = inventory
        self._max_age_ns = max_age_ns
        self._lock = threading.Lock()
        self._handles: dict[str, Handle] | None = None
        self._energy_before: dict[str, float] = {}
        self._read_ns = 0
        self.last: tuple[GpuUsage, ...] = ()
        """What was read last."""

    def read(self) -> tuple[GpuUsage, ...]:
        """Read now, or what was read lately. Empty without GPUs, or where NVML does not answer any more."""
        gpus, nvml = self._inventory.found().gpus, self._inventory.nvml
        if nvml is None:
            return ()
        with self._lock:
            now_ns = time.monotonic_ns()
            if not self._read_ns or now_ns - self._read_ns >= self._max_age_ns:
                self.last = self._all(nvml, gpus)
                self._read_ns = now_ns
            return self.last

    def _all(self, nvml: Nvml, gpus: tuple[Gpu, ...]) -> tuple[GpuUsage, ...]:
        try:
            if self._handles is None:
                self._handles = handles_of(nvml)
        except nvml.NVMLError:
            return ()
        handles = self._handles
        return tuple([self._one(nvml, g, handles[g.uuid]) for g in gpus if g.uuid in handles])

    def _one(self, nvml: Nvml, gpu: Gpu, handle: Handle) -> GpuUsage:
        def told(ask: Callable[[Handle], Any]) -> Any:
            try:
                return ask(handle)
            except nvml.NVMLError:
                return None

        rates, memory = told(nvml.nvmlDeviceGetUtilizationRates), told(nvml.nvmlDeviceGetMemoryInfo)
        return GpuUsage(
            gpu.uuid,
            None if rates is None else rates.gpu / 100,
            None if memory is None else float(memory.total),
            None if memory is None else float(memory.used),
            _thousandth(told(nvml.nvmlDeviceGetPowerUsage)),
            _thousandth(told(nvml.nvmlDeviceGetPowerManagementLimit)),
            self._since_start(
                gpu.uuid, _thousandth(told(nvml.nvmlDeviceGetTotalEnergyConsumption))
            ),
        )

    def _since_start(self, uuid: str, joules: float | None) -> float | None:
        if joules is None:
            return None
        # a driver that was loaded anew counts from 0 again
        return max(0.0, joules - self._energy_before.setdefault(uuid, joules))


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
