"""Metrics on their way to MLflow: a file that takes them at once, and from which they are sent when there is somebody
to take them. It outlives the process."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.trust.signing import write_whole

METRICS: Final = "metrics.jsonl"
SENT: Final = "sent"


@dataclass(frozen=True, slots=True)
class Entry:
    """Values of one moment."""

    step: int
    time_ms: int
    values: Mapping[str, float]


class MetricJournal:
    """One run's. `add` is called by the training, all else by the thread that sends."""

    def __init__(self, folder: Path) -> None:
        """Goes on where an earlier process has stopped. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path: Final = folder / METRICS
        self._sent_path: Final = folder / SENT
        self._lock: Final = threading.Lock()
        self._last_step: Final[dict[str, int]] = {}
        self._end = self._recover()
        self._sent = min(self._read_sent(), self._end)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Note values, unless those of this step were noted before: a resumed run goes through some steps again.
        Raises OSError."""
        with self._lock:
            new = {name: float(v) for name, v in values.items() if self._is_new(name, step)}
            if not new:
                return
            line = _line(Entry(step, time.time_ns() // 1_000_000, new))
            with self._path.open("ab", buffering=0) as file:
                file.write(line)
            self._end += len(line)
            self._last_step.update(dict.fromkeys(new, step))

    def next_step(self, name: str) -> int:
        """The first one of which nothing was noted under this name."""
        with self._lock:
            return self._last_step.get(name, -1) + 1

    @property
    def unsent_bytes(self) -> int:
        with self._lock:
            return self._end - self._sent

    def unsent(self, most: int) -> tuple[list[Entry], int]:
        """The oldest entries that were not sent, with at most so many values (but one entry at least), and what to
        give to `advance` when they were. Raises OSError."""
        entries: list[Entry] = []
        count, place = 0, self._sent
        with self._path.open("rb") as file:
            file.seek(place)
            for line in file:
                if not line.endswith(b"\n"):
                    # it is being written
                    break
                entry = _parsed(line)
                if entries and count + len(entry.values) > most:
                    break
                entries.append(entry)
                count += len(entry.values)
                place += len(line)
        return entries, place

    def advance(self, place: int) -> None:
        """All up to there was sent. What was sent and is not noted here is sent again: MLflow takes it once."""
        write_whole(self._sent_path, f"{place}\n".encode())
        with self._lock:
            self._sent = place

    def _is_new(self, name: str, step: int) -> bool:
        return step > self._last_step.get(name, -1)

    def _recover(self) -> int:
        """Cut off a line that a killed process has not finished, and know what was noted. Returns where it ends."""
        end = 0
        with self._path.open("ab+") as file:
            file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    os.truncate(self._path, end)
                    break
                end += len(line)
                entry = _parsed(line)
                self._last_step.update(dict.fromkeys(entry.values, entry.step))
        return end

    def _read_sent(self) -> int:
        try:
            return int(self._sent_path.read_text())
        except FileNotFoundError:
            return 0


def _line(entry: Entry) -> bytes:
    found = {"step": entry.step, "time_ms": entry.time_ms, "values": dict(entry.values)}
    return json.dumps(found).encode() + b"\n"


def _parsed(line: bytes) -> Entry:
    found = json.loads(line)
    return Entry(found["step"], found["time_ms"], found["values"])
