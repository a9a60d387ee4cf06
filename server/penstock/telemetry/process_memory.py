"""How much memory processes hold, read from /proc when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """What all of them hold in memory, with what they share; 0 for those that are gone, or without a /proc."""
    return sum(_resident_bytes(proc / str(pid) / "statm") for pid in pids)


def _resident_bytes(statm: Path) -> int:
    try:
        return int(statm.read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0
