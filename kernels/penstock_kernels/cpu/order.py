"""FP32's bits as int32: LLVM makes vectors of comparisons of integers, and not of floats that may be NaN."""

from __future__ import annotations

from typing import Final

import numpy as np
from llvmlite import ir
from numba import types

from penstock_kernels.cpu.bits import cast
from penstock_kernels.cpu.jit import inlined

bits_of: Final = cast(
    types.float32, types.int32, lambda builder, x: builder.bitcast(x, ir.IntType(32))
)
"""FP32 → int32 of the same bits."""

float_of: Final = cast(
    types.int32, types.float32, lambda builder, x: builder.bitcast(x, ir.FloatType())
)
"""Int32 → FP32 of the same bits."""


@inlined
def ordered(bits: np.int32) -> np.int32:
    """Integers in the order of the floats: of negative ones, all bits but the sign are turned round. NaN lie beyond
    the infinities, on the side of their sign. Its own inverse."""
    sign = np.int32(bits >> np.int32(31))
    return np.int32(bits ^ np.int32(sign & np.int32(0x7FFFFFFF)))
