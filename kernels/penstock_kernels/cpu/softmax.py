"""Softmax and log-softmax of rows, FP32."""

from __future__ import annotations

import numpy as np

from penstock_kernels.cpu.jit import inlined, jit
from penstock_kernels.cpu.order import bits_of, float_of, ordered
from penstock_kernels.runner import Array

LEAST = np.iinfo(np.int32).min
MOST = np.iinfo(np.int32).max
INFINITY = 0x7F800000
"""As `ordered` says it; and minus infinity is -INFINITY - 1."""


@inlined
def exp_of_negative(x: np.float32) -> np.float32:
    """For x <= 0, as accurate as FP32; 0 where the result would be no normal number. LLVM makes vectors of it, which
    it can't of libm's.

    exp(x) = 2^n * exp(r), |r| <= log(2) / 2: 2^n by its bits, exp(r) by Cephes's polynomial.
    """
    least = np.float32(-87.336544)
    kept = max(x, least)
    # the cast cuts towards zero
    n = np.int32(kept * np.float32(1.4426950408889634) - np.float32(0.5))
    whole = np.float32(n)
    r = kept - whole * np.float32(0.693359375)
    r = r - whole * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1)
    power = float_of(np.int32(np.int32(n + np.int32(127)) << np.int32(23)))
    return p * power if x >= least else np.float32(0)


@inlined
def largest(row: Array) -> np.float32:
    """NaN where the row's softmax is NaN throughout: it has a NaN, an infinity as its largest, or no finite one."""
    high = np.int32(LEAST)
    low = np.int32(MOST)
    for i in range(row.shape[0]):
        rank = ordered(bits_of(row[i]))
        if rank > high:
            high = rank
        if rank < low:
            low = rank
    infinity = np.int32(INFINITY)
    if high >= infinity or high <= -infinity - 1 or low < -infinity - 1:
        return np.float32(np.nan)
    most: np.float32 = float_of(ordered(high))
    return most


@jit
def softmax(x: Array, out: Array, begin: int, end: int) -> None:
    """Of rows x[begin:end]."""
    for index in range(begin, end):
        row, written = x[index], out[index]
        most = largest(row)
        if np.isnan(most):
            written[:] = most
            continue
        total = np.float32(0)
        for i in range(row.shape[0]):
            e = exp_of_negative(row[i] - most)
            written[i] = e
            total += e
        scale = np.float32(1) / total
        for i in range(row.shape[0]):
            written[i] *= scale


@jit
def log_softmax(x: Array, out: Array, begin: int, end: int) -> None:
    """Of rows x[begin:end]."""
    for index in range(begin, end):
        row, written = x[index], out[index]
        most = largest(row)
        if np.isnan(most):
            written[:] = most
            continue
        total = np.float32(0)
        for i in range(row.shape[0]):
            total += exp_of_negative(row[i] - most)
        log_total = np.log(total)
        for i in range(row.shape[0]):
            # in this order: most and its logarithm may differ by more digits than FP32 has
            written[i] = (row[i] - most) - log_total
