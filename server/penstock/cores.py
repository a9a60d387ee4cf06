"""How many cores this process may use: its affinity, and the CPU quota of its container."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = _CGROUP) -> int:
    """At least 1. A quota of 2.5 cores counts as 3."""
    affinity = len(os.sched_getaffinity(0))
    quota = _quota_cores(cgroup)
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def _quota_cores(cgroup: Path) -> float | None:
    """Cores by the cgroup's CPU quota, version 2 or 1; None without one."""
    try:
        if (v2 := cgroup / "cpu.max").exists():
            quota, period = v2.read_text().split()
        else:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return None
    if quota == "max" or int(quota) <= 0:
        return None
    return int(quota) / int(period)
