"""FP32's bits as int32: LLVM makes vectors of comparisons of integers, and not of floats that may be NaN."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from penstock_kernels.cpu.jit import inlined


def _cast(given: Any, result: Any) -> Any:
    def typed(_context: Any, _x: Any) -> Any:
        def generated(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(result))

        return result(given), generated

    return intrinsic(typed)


bits_of: Final = _cast(types.float32, types.int32)
"""FP32 → int32 of the same bits."""

float_of: Final = _cast(types.int32, types.float32)
"""Int32 → FP32 of the same bits."""


@inlined
def ordered(bits: np.int32) -> np.int32:
    """Integers in the order of the floats: of negative ones, all bits but the sign are turned round. NaN lie beyond
    the infinities, on the side of their sign. Its own inverse."""
    sign = np.int32(bits >> np.int32(31))
    return np.int32(bits ^ np.int32(sign & np.int32(0x7FFFFFFF)))
