"""The GPUs that a gateway finds on its machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.metrics_core import Metric

from penstock.devices.discovery import VISIBLE, Inventory
from penstock.devices.usage import UsageReader
from penstock.telemetry.gpu_metrics import gpu_metrics

log = logging.getLogger(__name__)


class Gpus:
    """One a gateway."""

    def __init__(self, *, measured: bool) -> None:
        """`measured`: there are to be metrics of them."""
        self._inventory = Inventory(os.environ.get(VISIBLE))
        self._usage = UsageReader(self._inventory) if measured else None
        self.found: Final = self._inventory.found
        """Which there are. The first call looks."""
        self.read_usage: Final = None if self._usage is None else self._usage.read
        """Has `metrics` tell what they do now."""

    def look(self) -> None:
        """Before any model is loaded; blocks. Energy counts from here on."""
        found = self.found()
        if self._usage is not None:
            self._usage.read()
        if found.gpus:
            log.info("GPUs: %s (driver %s)", ", ".join(map(str, found.gpus)), found.driver)
        else:
            log.debug("no GPUs: %s", found.reason)

    def metrics(self) -> list[Callable[[], Iterator[Metric]]]:
        """For the metrics page."""
        usage = self._usage
        return [] if usage is None else [gpu_metrics(lambda: usage.last)]
