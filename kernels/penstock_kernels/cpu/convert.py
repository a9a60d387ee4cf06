"""Buffers of floats in other formats. FP16 and BF16 are uint16 here: their bits."""

from __future__ import annotations

from penstock_kernels.cpu import bits
from penstock_kernels.cpu.jit import jit
from penstock_kernels.runner import Array


@jit
def fp16_to_fp32(x: Array, out: Array, begin: int, end: int) -> None:
    """Of x[begin:end]."""
    given, made = x[begin:end], out[begin:end]
    for i in range(given.size):
        made[i] = bits.from_fp16(given[i])


@jit
def bf16_to_fp32(x: Array, out: Array, begin: int, end: int) -> None:
    """Of x[begin:end]."""
    given, made = x[begin:end], out[begin:end]
    for i in range(given.size):
        made[i] = bits.from_bf16(given[i])


@jit
def fp32_to_fp16(x: Array, out: Array, begin: int, end: int) -> None:
    """Of x[begin:end]."""
    given, made = x[begin:end], out[begin:end]
    for i in range(given.size):
        made[i] = bits.to_fp16(given[i])


@jit
def fp32_to_bf16(x: Array, out: Array, begin: int, end: int) -> None:
    """Of x[begin:end]."""
    given, made = x[begin:end], out[begin:end]
    for i in range(given.size):
        made[i] = bits.to_bf16(given[i])
