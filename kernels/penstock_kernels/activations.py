"""Functions of single elements."""

from __future__ import annotations

import math

import numpy as np

from penstock_kernels.checks import FLOAT32, require_float32, require_given, require_out
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Array, Runner, contiguous


def sigmoid(x: Array, on: Runner, out: Array | None = None) -> Array:
    """1 / (1 + exp(-x)) of each element: FP32, of any shape. Doesn't overflow, and NaN stays NaN."""
    if isinstance(on, Cpu):
        from penstock_kernels.cpu import activations

        require_float32(x)
        x = contiguous(x)
        result = np.empty_like(x) if out is None else require_out(out, x.shape, FLOAT32)
        flat, written = x.reshape(-1), result.reshape(-1)
        on.split(
            flat.size,
            2 * x.nbytes,
            lambda begin, end: activations.sigmoid(flat, written, begin, end),
        )
        return result
    from penstock_kernels.cuda.arrays import checked_pointer, view_of

    out, shape = require_given(out), view_of(x).shape
    source = checked_pointer(x, FLOAT32, "x")
    target = checked_pointer(out, FLOAT32, "out", shape)
    count = math.prod(shape)
    on.run("activations", "sigmoid_f32", -(-count // 256), source, target, np.int64(count))
    return out
