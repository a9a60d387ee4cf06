"""CPU time from /proc: of a session of processes, of its busiest thread, and of the whole machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
PPID, SESSION, UTIME, CUTIME, CSTIME_END = 3, 5, 13, 15, 17
"""Positions in proc(5)'s stat, counted from 0."""


@dataclass(frozen=True, slots=True)
class CpuReading:
    """Seconds of CPU used since each process or thread began."""

    session_s: float
    """All processes of the session, those that ended and were waited for included."""
    threads_s: dict[tuple[int, int, str], float]
    """By (pid, thread id, thread name)."""
    machine_s: float
    """Everything that ran on this machine, this session included."""


@dataclass(frozen=True, slots=True)
class CpuUse:
    """Seconds of CPU used between two readings."""

    session_s: float
    machine_s: float
    busiest_thread: str
    busiest_thread_s: float


def read(leader: int) -> CpuReading:
    """What the session of process `leader`, and the descendants that left it, have used so far."""
    pids = members(leader)
    threads: dict[tuple[int, int, str], float] = {}
    for pid in pids:
        threads.update(_threads(pid))
    session = sum(_process_seconds(pid) for pid in pids)
    return CpuReading(session, threads, _machine_seconds())


def between(before: CpuReading, after: CpuReading) -> CpuUse:
    """The difference; a thread that began in between counts from zero."""
    used = {key: s - before.threads_s.get(key, 0.0) for key, s in after.threads_s.items()}
    busiest = max(used, key=lambda key: used[key], default=(0, 0, "-"))
    return CpuUse(
        after.session_s - before.session_s,
        after.machine_s - before.machine_s,
        busiest[2],
        used.get(busiest, 0.0),
    )


def members(leader: int) -> set[int]:
    """The processes of the session that `leader` leads, and all descendants of `leader`."""
    stats = _all_stats()
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        children.setdefault(int(fields[PPID]), []).append(pid)
    found = {p for p, f in stats.items() if p == leader or int(f[SESSION]) == leader}
    waiting = list(found)
    while waiting:
        new = set(children.get(waiting.pop(), [])) - found
        found |= new
        waiting += new
    return found


def name_of(pid: int) -> str:
    """The process's short name, `?` where it has gone."""
    fields = _stat(PROC / str(pid) / "stat")
    return fields[1] if fields else "?"


def _all_stats() -> dict[int, list[str]]:
    pids = [int(entry) for entry in os.listdir(PROC) if entry.isdigit()]
    stats = {pid: _stat(PROC / str(pid) / "stat") for pid in pids}
    return {pid: fields for pid, fields in stats.items() if fields}


def _stat(path: Path) -> list[str]:
    """The fields of a stat file at proc(5)'s positions; empty where the process has gone."""
    try:
        text = path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    name = text[text.index("(") + 1 : text.rindex(")")]
    return [text.split(" ", 1)[0], name, *text[text.rindex(")") + 2 :].split()]


def _process_seconds(pid: int) -> float:
    """Own time and that of children that were waited for, so that nothing is lost when a worker ends."""
    fields = _stat(PROC / str(pid) / "stat")
    return sum(map(int, fields[UTIME:CSTIME_END])) / os.sysconf("SC_CLK_TCK")


def _threads(pid: int) -> Iterator[tuple[tuple[int, int, str], float]]:
    tasks = PROC / str(pid) / "task"
    try:
        thread_ids = os.listdir(tasks)
    except (FileNotFoundError, ProcessLookupError):
        return
    for thread_id in thread_ids:
        if fields := _stat(tasks / thread_id / "stat"):
            ticks = sum(map(int, fields[UTIME:CUTIME]))
            yield (pid, int(thread_id), fields[1]), ticks / os.sysconf("SC_CLK_TCK")


def _machine_seconds() -> float:
    """User, nice, system, interrupt and soft interrupt time of all CPUs."""
    with open(PROC / "stat") as file:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
