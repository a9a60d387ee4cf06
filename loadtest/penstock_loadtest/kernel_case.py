"""One thing that a kernel does, and the NumPy expression that it replaces, on the same data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from penstock_kernels.cpu.runner import Cpu


@dataclass(frozen=True)
class KernelCase:
    """A row of the table in docs/kernels.md."""

    name: str
    """Of the operation, and in brackets what it is measured against where that is not NumPy."""
    size: str
    """Of the data, for people."""
    touched_bytes: int
    """Read and written, each once: what the bandwidth is told by."""
    make: Callable[[np.random.Generator], tuple[Callable[[Cpu], object], Callable[[], object]]]
    """The call of the twin, and NumPy's, on the same data."""
