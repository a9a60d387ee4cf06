"""The metrics of GPUs, under Triton's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock.devices.usage import GpuUsage

LABEL: Final = "gpu_uuid"
Read = Callable[[GpuUsage], float | None]

GAUGES: Final[tuple[tuple[str, str, Read], ...]] = (
    ("nv_gpu_utilization", "GPU utilization rate [0.0 - 1.0)", lambda gpu: gpu.utilization),
    (
        "nv_gpu_memory_total_bytes",
        "GPU total memory, in bytes",
        lambda gpu: gpu.memory_total_bytes,
    ),
    ("nv_gpu_memory_used_bytes", "GPU used memory, in bytes", lambda gpu: gpu.memory_used_bytes),
    ("nv_gpu_power_usage", "GPU power usage in watts", lambda gpu: gpu.power_usage_watts),
    (
        "nv_gpu_power_limit",
        "GPU power management limit in watts",
        lambda gpu: gpu.power_limit_watts,
    ),
)
ENERGY: Final = (
    "nv_energy_consumption",
    "GPU energy consumption in joules since the server started",
)


def gpu_metrics(usage: Callable[[], Sequence[GpuUsage]]) -> Callable[[], Iterator[Metric]]:
    """Of the GPUs there are, at each scrape; none of these families without one."""

    def collect() -> Iterator[Metric]:
        gpus = usage()
        if not gpus:
            return
        for name, text, read in GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=[LABEL])
            for uuid, value in _told(gpus, read):
                gauge.add_metric([uuid], value)
            yield gauge
        counter = CounterMetricFamily(*ENERGY, labels=[LABEL])
        for uuid, value in _told(gpus, lambda gpu: gpu.energy_joules):
            counter.add_metric([uuid], value)
        yield counter

    return collect


def _told(gpus: Sequence[GpuUsage], read: Read) -> Iterator[tuple[str, float]]:
    for gpu in gpus:
        value = read(gpu)
        if value is not None:
            yield gpu.uuid, value
