"""Traces as files: one that grows, or numbered ones with so many traces each. Only the writer's thread is in here."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from penstock.telemetry.tracing.array_file import ArrayFile
from penstock.telemetry.tracing.records import trace_json
from penstock.telemetry.tracing.sampler import Sampler
from penstock.telemetry.tracing.trace import Trace

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Part:
    """A numbered file in the making. It gets its name when it is complete: who finds it, finds all of it."""

    file: ArrayFile
    traces: int = 0


class TraceFiles:
    """Writes the traces of all settings.

    A setting that neither numbers its files nor counts its traces writes into the one file; what an earlier gateway
    left there is kept as FILE.previous. All others write into FILE.0, FILE.1 and so on, and overwrite none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: ArrayFile | None = None
        self._parts: dict[Sampler, _Part] = {}
        self._written: dict[Sampler, int] = {}
        self._index = 0
        self.problem = ""
        """Why the last trace could not be written; empty: it could."""

    def write(self, trace: Trace) -> None:
        """Write a trace, or drop it when that can't be done."""
        sampler = trace.group
        assert isinstance(sampler, Sampler)
        elements = trace_json(trace, timestamps="TIMESTAMPS" in sampler.setting.level)
        try:
            if sampler.setting.log_frequency or sampler.setting.count > 0:
                self._write_part(sampler, elements)
            else:
                self._write_file(elements)
        except OSError as error:
            self._failed(error)
        else:
            self._worked()

    def retire(self, sampler: Sampler) -> None:
        """The setting has changed: what it collected is complete."""
        part = self._parts.pop(sampler, None)
        self._written.pop(sampler, None)
        if part is not None:
            try:
                self._complete(part)
            except OSError as error:
                self._failed(error)

    def close(self) -> None:
        """Complete all files."""
        for sampler in list(self._parts):
            self.retire(sampler)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_file(self, elements: bytes) -> None:
        if self._file is None:
            if self._path.is_file() and self._path.stat().st_size:
                os.replace(self._path, f"{self._path}.previous")
            self._file = ArrayFile(self._path)
        self._file.append(elements)

    def _write_part(self, sampler: Sampler, elements: bytes) -> None:
        part = self._parts.get(sampler)
        if part is None:
            part = self._parts[sampler] = _Part(ArrayFile(self._next_path()))
        part.file.append(elements)
        part.traces += 1
        written = self._written[sampler] = self._written.get(sampler, 0) + 1
        setting = sampler.setting
        if part.traces == setting.log_frequency or written == setting.count:
            del self._parts[sampler]
            self._complete(part)

    def _next_path(self) -> Path:
        while Path(f"{self._path}.{self._index}").exists():
            self._index += 1
        self._index += 1
        return Path(f"{self._path}.{self._index - 1}.part")

    def _complete(self, part: _Part) -> None:
        part.file.close()
        os.replace(part.file.path, part.file.path.with_suffix(""))

    def _failed(self, error: OSError) -> None:
        if not self.problem:
            log.error("traces are dropped: %s can't be written: %s", self._path, error.strerror)
        self.problem = f"{self._path} can't be written: {error.strerror}"

    def _worked(self) -> None:
        if self.problem:
            log.info("traces are written again")
            self.problem = ""
