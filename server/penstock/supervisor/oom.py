"""Whether the kernel has ended processes of this container for want of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PROC_CGROUP: Final = Path("/proc/self/cgroup")
_ROOT: Final = Path("/sys/fs/cgroup")


def count_oom_kills(proc_cgroup: Path = _PROC_CGROUP, root: Path = _ROOT) -> int:
    """Processes of this cgroup that were killed so far; 0 where that can't be told."""
    try:
        lines = proc_cgroup.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yours, file = root, "memory.events"
        elif controllers == "memory":
            yours, file = root / "memory", "memory.oom_control"
        else:
            continue
        # inside a container the path is the host's, and the root is ours
        for folder in (yours / path.lstrip("/"), yours):
            count = _read_count(folder / file)
            if count is not None:
                return count
    return 0


def _read_count(path: Path) -> int | None:
    try:
        fields = dict(line.split() for line in path.read_text().splitlines())
        return int(fields["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None
