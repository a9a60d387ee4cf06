"""A vector of each text from those of its tokens."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from penstock_kernels.checks import (
    FLOAT32,
    require_dimensions,
    require_float32,
    require_given,
    require_out,
    require_shape,
)
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Array, Runner, contiguous

_MASKS: Final = {
    np.dtype(name): suffix
    for name, suffix in (
        ("int64", "i64"),
        ("int32", "i32"),
        ("bool", "u8"),
        ("uint8", "u8"),
        ("float32", "f32"),
    )
}
"""dtype → suffix of the CUDA kernel."""
_NAMES: Final = ("batch", "tokens", "width")


def masked_mean(
    x: Array, mask: Array, on: Runner, normalise: bool = True, out: Array | None = None
) -> Array:
    """FP32 x[batch, tokens, width] → [batch, width]: the mean over the tokens whose `mask` [batch, tokens] is not 0,
    and with `normalise` divided by its length (L2).

    What is masked isn't read: it may be NaN. A text without tokens is zeros, and so is one whose mean is zeros.
    `mask`: int64, int32, bool, uint8 or float32.
    """
    if isinstance(on, Cpu):
        from penstock_kernels.cpu import pooling

        require_float32(x)
        require_dimensions(x.shape, _NAMES, "x")
        require_shape(mask.shape, x.shape[:2], "mask")
        _suffix(mask.dtype)
        x, mask = contiguous(x), contiguous(mask)
        shape = (x.shape[0], x.shape[2])
        result = np.empty(shape, np.float32) if out is None else require_out(out, shape, FLOAT32)
        on.split(
            x.shape[0],
            x.nbytes,
            lambda begin, end: pooling.masked_mean(x, mask, result, normalise, begin, end),
        )
        return result
    from penstock_kernels.cuda.arrays import checked_pointer, pointer, view_of

    out, shape, masks = require_given(out), view_of(x).shape, view_of(mask)
    require_dimensions(shape, _NAMES, "x")
    require_shape(masks.shape, shape[:2], "mask")
    batch, tokens, width = shape
    kernel = f"masked_mean_{_suffix(masks.dtype)}"
    sizes = (np.int64(batch), np.int64(tokens), np.int64(width), np.int32(normalise))
    threads = min(1024, -(-width // 32) * 32)
    blocks = min(batch, 65535) if width else 0
    read = checked_pointer(x, FLOAT32, "x")
    written = checked_pointer(out, FLOAT32, "out", (batch, width))
    on.run("pooling", kernel, blocks, read, pointer(mask), written, *sizes, threads=threads)
    return out


def _suffix(dtype: Any) -> str:
    if dtype not in _MASKS:
        raise TypeError(f"mask is of {dtype}; expected {', '.join(map(str, _MASKS))}")
    return _MASKS[dtype]
