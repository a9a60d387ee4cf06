"""Functions of single elements."""

from __future__ import annotations

import numpy as np

from penstock_kernels.checks import FLOAT32, require_float32, require_out
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
    from penstock_kernels.cuda.arrays import pointer, size_of

    assert out is not None, "a GPU's memory is the caller's to make"
    size = size_of(x)
    on.run("activations", "sigmoid_f32", -(-size // 256), pointer(x), pointer(out), np.int64(size))
    return out
