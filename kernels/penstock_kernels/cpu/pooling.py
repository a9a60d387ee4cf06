"""Means of tokens, FP32."""

from __future__ import annotations

import numpy as np

from penstock_kernels.cpu.jit import jit
from penstock_kernels.runner import Array


@jit
def masked_mean(x: Array, mask: Array, out: Array, normalise: bool, begin: int, end: int) -> None:
    """Of the tokens of x[begin:end] whose mask is not 0."""
    tokens, width = x.shape[1], x.shape[2]
    for row in range(begin, end):
        written = out[row]
        written[:] = 0
        count = 0
        for token in range(tokens):
            if mask[row, token] != 0:
                count += 1
                vector = x[row, token]
                for d in range(width):
                    written[d] += vector[d]
        scale = np.float64(1) / max(count, 1)
        if normalise:
            # in FP64: squares of large numbers would be infinite
            squares = np.float64(0)
            for d in range(width):
                squares += np.float64(written[d]) * np.float64(written[d])
            scale = np.float64(1) / np.sqrt(squares) if squares != 0 else np.float64(0)
        for d in range(width):
            written[d] = np.float32(written[d] * scale)
