"""Counts what became of checks, for the metrics page."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock.trust.artifact import Judgement


class TrustCounts:
    """An observer of checks. There are metrics as soon as there was a check."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._outcomes: Counter[tuple[str, int, str]] = Counter()
        self._serials: dict[tuple[str, int], int] = {}
        self._nbytes = 0
        self._seconds = 0.0

    def __call__(self, judgement: Judgement) -> None:
        """One check more."""
        with self._lock:
            self._outcomes[judgement.model, judgement.version, judgement.outcome] += 1
            self._nbytes += judgement.nbytes
            self._seconds += judgement.seconds
            if judgement.outcome == "verified":
                self._serials[judgement.model, judgement.version] = judgement.serial

    def metrics(self) -> Iterator[Metric]:
        """For a MetricsPage."""
        with self._lock:
            if not self._outcomes:
                return
            checks = CounterMetricFamily(
                "penstock_artifact_checks",
                "Versions that were verified, decrypted, or refused, by the name of the error",
                labels=["model", "version", "outcome"],
            )
            for (model, version, outcome), count in self._outcomes.items():
                checks.add_metric([model, str(version), outcome], count)
            serials = GaugeMetricFamily(
                "penstock_artifact_release_serial",
                "Serial number of the release that was verified last",
                labels=["model", "version"],
            )
            for (model, version), serial in self._serials.items():
                serials.add_metric([model, str(version)], serial)
            nbytes = CounterMetricFamily(
                "penstock_artifact_verified_bytes", "Bytes that were verified", self._nbytes
            )
            seconds = CounterMetricFamily(
                "penstock_artifact_verified_seconds", "Seconds that it took", self._seconds
            )
        yield from (checks, serials, nbytes, seconds)
