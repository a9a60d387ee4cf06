"""MLflow's system metrics, handed to whoever keeps metrics: MLflow's own thread ends with the first call that fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock_training.mlflow_link import quiet

log = logging.getLogger(__name__)


class SystemMetrics:
    """Processor, memory, disk, network and GPUs of this machine, sampled by MLflow's monitors."""

    def __init__(self, period_s: float, sink: Callable[[Mapping[str, float]], None]) -> None:
        """`sink` takes `system/…` by name, in this one's thread."""
        self._period_s: Final = period_s
        self._sink: Final = sink
        self._ended: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="system-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take a last sample, and end."""
        self._ended.set()
        self._thread.join(10)

    def _run(self) -> None:
        try:
            monitors = _monitors()
            while not self._ended.wait(self._period_s):
                self._sample(monitors)
            self._sample(monitors)
        except Exception:
            # MLflow's monitors raise whatever drivers raise, and a training goes on without
            log.exception("there are no more system metrics")

    def _sample(self, monitors: list[Any]) -> None:
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= {f"system/{name}": v for name, v in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        self._sink(values)


def _monitors() -> list[Any]:
    with quiet():
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
        from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    everywhere: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]
    found = [kind() for kind in everywhere]
    kinds: list[Any] = [GPUMonitor, ROCMMonitor]
    for kind in kinds:
        try:
            found.append(kind())
            break
        except (ImportError, RuntimeError):
            log.debug("no GPU is watched by %s", kind.__name__, exc_info=True)
    return found
