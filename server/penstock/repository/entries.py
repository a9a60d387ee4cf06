"""The lines of the index: models, and their versions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from penstock.repository.overrides import KeptOverride
from penstock.repository.served_model import ServedModel
from penstock.workers.supervisor_messages import UNLOADED, ModelReport


@dataclass(slots=True)
class VersionEntry:
    """One version in the index."""

    state: str
    """READY, LOADING, UNLOADING or UNAVAILABLE."""
    reason: str = ""
    model: ServedModel | None = None
    backend: str = ""
    key: bytes = b""
    """What `model` was made of."""


@dataclass(slots=True)
class ModelEntry:
    """One model in the index."""

    name: str
    versions: dict[int, VersionEntry] = field(default_factory=dict)
    reason: str = ""
    """Why there is no version at all."""
    wanted: bool = False
    """It was asked for, at start or by request, and not unloaded since."""
    explicit: bool = False
    """It was asked for by its own name, and not only because another model needs it."""
    folder: Path | None = None
    """From which it was loaded."""
    only_default: bool = False
    """Only the default version answers requests that name none."""
    override: KeptOverride | None = None
    """What a request gave, where it was loaded from that."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Loads and unloads of one model come one after the other."""

    @property
    def serves(self) -> bool:
        """Some version is loaded."""
        return any(version.model is not None for version in self.versions.values())

    @property
    def reasons(self) -> list[str]:
        """Why it, or some version of it, is not served."""
        reasons = [version.reason for version in self.versions.values() if version.reason]
        return reasons or [self.reason] if self.reason else reasons


class Entries(dict[str, ModelEntry]):
    """All models by name."""

    @contextlib.asynccontextmanager
    async def locked(self, name: str) -> AsyncIterator[ModelEntry]:
        """The model's entry, which is made where there is none, and which nobody else changes meanwhile."""
        while True:
            entry = self.setdefault(name, ModelEntry(name))
            async with entry.lock:
                # another one is there when this one was forgotten while the lock was waited for
                if self.get(name) is entry:
                    yield entry
                    return

    def forget(self, name: str) -> None:
        """Drop what is neither served nor about to be."""
        entry = self.get(name)
        if entry is not None and not entry.serves and not entry.lock.locked():
            del self[name]


def report_lines(entries: Iterable[ModelEntry]) -> list[ModelReport]:
    """A line for each version of each model, also those that can't be served."""
    reports = []
    for entry in sorted(entries, key=lambda entry: entry.name):
        if not entry.versions:
            reports.append(idle_line(entry.name, entry.reason))
        reports += [_report(entry.name, v, e) for v, e in sorted(entry.versions.items())]
    return reports


def idle_line(name: str, reason: str = UNLOADED) -> ModelReport:
    """The line of a model of which there is no version."""
    return ModelReport(name, "", "UNAVAILABLE", reason, "", 0)


def _report(name: str, number: int, entry: VersionEntry) -> ModelReport:
    model = entry.model
    state, reason = entry.state, entry.reason
    if model is not None and not model.ready:
        state, reason = "UNAVAILABLE", model.pool.last_crash
    elif model is not None and state == "READY":
        reason = reason or model.fallback
    instances = len(model.pool.instances) if model is not None else 0
    devices = ", ".join(model.statistics.devices()) if model is not None else ""
    return ModelReport(name, str(number), state, reason, entry.backend, instances, devices)
