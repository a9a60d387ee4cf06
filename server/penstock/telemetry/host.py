"""CPU and memory of the machine, read from /proc when asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TIMES: Final = 8
"""Fields of /proc/stat that add up to all time; those of guests are part of `user` and `nice`."""
_IDLE: Final = slice(3, 5)
"""`idle` and `iowait`."""


@dataclass(frozen=True, slots=True)
class HostUsage:
    """The machine at one moment."""

    cpu_utilization: float
    """Busy share of all processors since the reading before this one, 0 to 1."""
    memory_total_bytes: int
    memory_used_bytes: int
    """Not available to new processes without swapping."""


class HostReader:
    """Reads `HostUsage`; keeps the last processor times, since utilization is a difference."""

    def __init__(self, proc: Path = Path("/proc"), interval_ns: int = 0) -> None:
        """What was read within the last `interval_ns` is not read again."""
        self._interval_ns: Final = interval_ns
        self._usage: HostUsage | None = None
        self._read_ns = 0
        self._stat: Final = proc / "stat"
        self._meminfo: Final = proc / "meminfo"
        self._idle = 0
        self._total = 0
        self._utilization = 0.0

    def read(self) -> HostUsage | None:
        """Read now, or what was read lately. The first utilization is since the machine started. None without a
        /proc."""
        now_ns = time.monotonic_ns()
        if self._usage is None or now_ns - self._read_ns >= self._interval_ns:
            self._usage, self._read_ns = self._read(), now_ns
        return self._usage

    def _read(self) -> HostUsage | None:
        try:
            stat = self._stat.read_text()
            meminfo = self._meminfo.read_text()
        except OSError:
            return None
        fields = dict(line.split(":", 1) for line in meminfo.splitlines())
        total_bytes = _kilobytes(fields["MemTotal"])
        available_bytes = _kilobytes(fields["MemAvailable"])
        return HostUsage(self._advance(stat), total_bytes, total_bytes - available_bytes)

    def _advance(self, stat: str) -> float:
        times = [int(ticks) for ticks in stat.split("\n", 1)[0].split()[1 : 1 + _TIMES]]
        idle, total = sum(times[_IDLE]), sum(times)
        # Two scrapes within one tick of the kernel's clock: nothing new is known.
        if total > self._total:
            share = 1 - (idle - self._idle) / (total - self._total)
            # The kernel's iowait may run backwards.
            self._utilization = min(max(share, 0.0), 1.0)
            self._idle, self._total = idle, total
        return self._utilization


def _kilobytes(text: str) -> int:
    return int(text.split()[0]) * 1024
