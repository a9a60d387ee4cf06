"""Functions of single elements."""

from __future__ import annotations

import numpy as np

from penstock_kernels.cpu.jit import jit
from penstock_kernels.runner import Array


@jit
def sigmoid(x: Array, out: Array, begin: int, end: int) -> None:
    """Of x[begin:end], FP32."""
    one = np.float32(1)
    given, made = x[begin:end], out[begin:end]
    for i in range(given.size):
        # of two values that can't overflow the one that has all its digits
        e = np.exp(-abs(given[i]))
        made[i] = one / (one + e) if given[i] >= 0 else e / (one + e)
