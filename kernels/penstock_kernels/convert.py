"""Buffers of FP16 and BF16 to FP32 and back. What is no number stays so, and infinities and subnormals stay what they
are; FP32 is rounded to the nearest, of two that are as near to the even one, and to infinity beyond the largest."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from penstock_kernels.checks import FLOAT32, FLOAT_SUFFIXES, require_given, require_out
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Array, Runner, contiguous

SMALL: Final = 1 << 16
"""Fewer elements of BF16 are left to ml_dtypes, as all are on one thread: it widens them at the speed of memory."""


def to_fp32(x: Array, on: Runner, out: Array | None = None) -> Array:
    """FP16 or BF16 (ml_dtypes' bfloat16) of any shape."""
    return _converted(x, FLOAT32, on, out)


def from_fp32(x: Array, dtype: Any, on: Runner, out: Array | None = None) -> Array:
    """FP32 of any shape, as `dtype`: FP16 or BF16."""
    return _converted(x, np.dtype(dtype), on, out)


def _converted(x: Array, dtype: np.dtype[Any], on: Runner, out: Array | None) -> Array:
    if not isinstance(on, Cpu):
        on_gpu: Array = _on_gpu(x, dtype, on, out)
        return on_gpu
    from penstock_kernels.cpu import convert

    name = _name(x.dtype, dtype)
    if out is not None:
        require_out(out, x.shape, dtype)
    if name == "bf16_to_fp32" and (on.threads == 1 or x.size < SMALL):
        if out is None:
            return x.astype(dtype)
        require_out(out, x.shape, dtype)[...] = x
        return out
    kernel = getattr(convert, name)
    x = contiguous(x)
    result: Array = np.empty(x.shape, dtype) if out is None else require_out(out, x.shape, dtype)
    flat, written = (_bits(array) for array in (x, result))
    on.split(x.size, x.nbytes + result.nbytes, lambda begin, end: kernel(flat, written, begin, end))
    return result


def _on_gpu(x: Any, dtype: np.dtype[Any], on: Any, out: Any) -> Any:
    from penstock_kernels.cuda.arrays import checked_pointer, dtype_of, pointer, size_of, view_of

    out, size = require_given(out), size_of(x)
    kernel = _name(dtype_of(x), dtype)
    written = checked_pointer(out, dtype, "out", view_of(x).shape)
    on.run("convert", kernel, -(-size // 256), pointer(x), written, np.int64(size))
    return out


def _name(given: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    """Raises TypeError for formats that there is no kernel for."""
    if {given, wanted} <= FLOAT_SUFFIXES.keys() and (given == FLOAT32) != (wanted == FLOAT32):
        return f"{FLOAT_SUFFIXES[given]}_to_{FLOAT_SUFFIXES[wanted]}"
    raise TypeError(f"{given} can't be made {wanted}; expected FP16 or BF16 and FP32")


def _bits(array: Array) -> Array:
    """In one dimension, 16-bit formats as their bits."""
    flat = array.reshape(-1)
    return flat if flat.dtype == FLOAT32 else flat.view(np.uint16)
