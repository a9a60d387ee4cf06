"""The server's processes, and what they hold: memory, descriptors, slabs."""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock_loadtest import cpu

PROC: Final = Path("/proc")
SHARED_MEMORY: Final = Path("/dev/shm")
LEFT_BY_TRITON: Final = "triton_python_backend_shm_region_"
"""A real Triton beside us leaves these when it is killed; Penstock has no names in /dev/shm at all."""
WORKER: Final = "penstock.workers.main"


@dataclass(frozen=True, slots=True)
class Family:
    """Process ids of one server."""

    supervisor: int
    gateway: int
    """0 while there is none."""
    workers: tuple[tuple[str, int], ...]
    """(label such as `affine/1#0`, process id)"""

    @property
    def pids(self) -> set[int]:
        """All of them."""
        return {self.supervisor, self.gateway, *(pid for _, pid in self.workers)} - {0}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a server holds at one moment."""

    processes: int
    workers: tuple[str, ...]
    """Their names, such as `affine/1#0`, in order."""
    gateway_rss_kib: int
    """Of its own: slabs, which it shares with workers, are left out."""
    supervisor_rss_kib: int
    gateway_descriptors: int
    supervisor_descriptors: int
    worker_descriptors: int
    """The most that one worker has."""
    slabs: int
    """Anonymous shared memory that the gateway has open."""
    shared_memory: frozenset[str]
    """Names in /dev/shm, but for what other programs hold."""


def read_family(supervisor: int) -> Family:
    """The processes of the server whose supervisor that is."""
    others = cpu.members(supervisor) - {supervisor}
    commands = {pid: _command(pid) for pid in others}
    workers = sorted(
        (words[words.index("--name") + 1], pid)
        for pid, words in commands.items()
        if WORKER in words and "--name" in words
    )
    known = {pid for _, pid in workers}
    gateways = [p for p in sorted(others - known) if commands[p] and WORKER not in commands[p]]
    return Family(supervisor, gateways[0] if gateways else 0, tuple(workers))


def read_holdings(supervisor: int) -> Reading:
    """Count it all now."""
    family = read_family(supervisor)
    return Reading(
        processes=len(family.pids),
        workers=tuple(label for label, _ in family.workers),
        gateway_rss_kib=_own_rss_kib(family.gateway),
        supervisor_rss_kib=_own_rss_kib(supervisor),
        gateway_descriptors=len(_descriptors(family.gateway)),
        supervisor_descriptors=len(_descriptors(supervisor)),
        worker_descriptors=max((len(_descriptors(p)) for _, p in family.workers), default=0),
        slabs=sum("penstock-slab" in target for target in _descriptors(family.gateway)),
        shared_memory=shared_memory(family.pids),
    )


def shared_memory(ours: Set[int] = frozenset()) -> frozenset[str]:
    """Names in /dev/shm, but for those that processes other than ours have mapped or open."""
    names = {
        path.name for path in SHARED_MEMORY.iterdir() if not path.name.startswith(LEFT_BY_TRITON)
    }
    if names:
        others = {int(p.name) for p in PROC.iterdir() if p.name.isdigit()} - ours
        names -= {name for pid in others for name in _held(pid)}
    return frozenset(names)


def alive(pid: int) -> bool:
    """Whether the process runs: a zombie does not."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _held(pid: int) -> set[str]:
    """Names in /dev/shm that the process has mapped or open."""
    try:
        targets = [
            line.split(maxsplit=5)[5]
            for line in (PROC / str(pid) / "maps").read_text().splitlines()
            if str(SHARED_MEMORY) in line
        ]
    except OSError:
        return set()
    targets += _descriptors(pid)
    return {Path(target).name for target in targets if target.startswith(f"{SHARED_MEMORY}/")}


def _command(pid: int) -> list[str]:
    try:
        return (PROC / str(pid) / "cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def _descriptors(pid: int) -> list[str]:
    """What each open descriptor points to."""
    folder = PROC / str(pid) / "fd"
    found = []
    try:
        for name in os.listdir(folder):
            found.append(os.readlink(folder / name))
    except OSError:
        return found
    return found


def _own_rss_kib(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    fields = {key: value for key, _, value in (line.partition(":") for line in lines)}
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile") if name in fields)
