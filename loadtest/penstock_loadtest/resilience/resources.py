"""What a server's processes hold, read from /proc: memory, descriptors, shared memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from penstock_loadtest import cpu
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.servers import RunningServer

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
SHARED_MEMORY: Final = Path("/dev/shm")
LISTEN: Final = "0A"
LOCAL, STATE, INODE = 1, 3, 9
"""Columns of /proc/net/tcp."""


class Holdings(msgspec.Struct, frozen=True):
    """What a server holds at one time."""

    gateway_bytes: int
    """Resident memory of the process that listens on the gRPC port."""
    total_bytes: int
    """Resident memory of all its processes; pages that they share are counted in each."""
    descriptors: int
    """Of all its processes."""
    processes: int
    shared_memory_files: int
    """In /dev/shm, of whatever program."""


def holdings(server: RunningServer) -> Holdings:
    """Read all. Raises BenchmarkError where no process of the server listens on its gRPC port."""
    pids = cpu.members(server.pid)
    return Holdings(
        gateway_bytes=resident_bytes([gateway_of(server.ports.grpc, pids)]),
        total_bytes=resident_bytes(pids),
        descriptors=sum(len(_descriptors(pid)) for pid in pids),
        processes=len(pids),
        shared_memory_files=len(os.listdir(SHARED_MEMORY)),
    )


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of those of `pids` that are still there."""
    pages = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            pages += int((cpu.PROC / str(pid) / "statm").read_text().split()[1])
    return pages * PAGE_BYTES


def gateway_of(port: int, pids: Iterable[int]) -> int:
    """The process of `pids` that listens on `port`; the lowest id where a listener is shared."""
    links = {f"socket:[{inode}]" for inode in _listeners(port)}
    for pid in sorted(pids):
        if not links.isdisjoint(_descriptors(pid)):
            return pid
    raise BenchmarkError(f"no process of the server listens on port {port}")


def _listeners(port: int) -> set[str]:
    """Inodes of the sockets that listen on `port`."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in (cpu.PROC / "net" / table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[STATE] == LISTEN and int(columns[LOCAL].rpartition(":")[2], 16) == port:
                found.add(columns[INODE])
    return found


def _descriptors(pid: int) -> list[str]:
    """What each of the process's descriptors leads to; none where the process has gone."""
    folder, found = cpu.PROC / str(pid) / "fd", []
    with suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):
                found.append(os.readlink(folder / name))
    return found
