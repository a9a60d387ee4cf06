"""Floats as bits, and the formats that Numba does not have: FP16, BF16, FP8. To be called from other twins."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any, Final

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from penstock_kernels.cpu.jit import inlined

HAS_FP16: Final = not os.environ.get("NUMBA_CPU_NAME") and (
    platform.machine() in ("aarch64", "arm64")
    or bool(llvmlite.binding.get_host_cpu_features().get("f16c"))
)
"""This machine has instructions for FP16; LLVM would call a function that is not there where it hasn't."""


def cast(given: Any, result: Any, build: Callable[[Any, Any], Any]) -> Any:
    """For twins: a function from one of Numba's scalar types to another, by LLVM's instructions that `build` makes."""

    def typed(context: Any, x: Any) -> Any:
        def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return build(builder, arguments[0])

        return result(given), generated

    return intrinsic(typed)


float_bits: Final = cast(
    types.float32, types.uint32, lambda builder, x: builder.bitcast(x, ir.IntType(32))
)
"""The 32 bits of an FP32."""

from_bits: Final = cast(
    types.uint32, types.float32, lambda builder, x: builder.bitcast(x, ir.FloatType())
)
"""The FP32 of 32 bits."""

_instruction_to_fp16: Final = cast(
    types.float32,
    types.uint16,
    lambda builder, x: builder.bitcast(builder.fptrunc(x, ir.HalfType()), ir.IntType(16)),
)
_instruction_from_fp16: Final = cast(
    types.uint16,
    types.float32,
    lambda builder, x: builder.fpext(builder.bitcast(x, ir.HalfType()), ir.FloatType()),
)


@inlined
def narrowed(x: Any, shift: Any, least: Any, magic: Any, infinity: Any, nan: Any) -> Any:
    """An FP32's bits in a narrower format, rounded to nearest even. `shift`: by how many bits its mantissa is shorter.
    `least`: bits of its least normal FP32. `magic`: whose last bit is worth that of its subnormals. `infinity`,
    `nan`: what stands for all that is too large, and for NaN."""
    bits = float_bits(x)
    size = np.uint32(bits & np.uint32(0x7FFFFFFF))
    odd = np.uint32(np.uint32(size >> shift) & np.uint32(1))
    half = np.uint32(np.uint32(np.uint32(1) << np.uint32(shift - np.uint32(1))) - np.uint32(1))
    # the least normal number's exponent becomes 1
    rebased = np.uint32(size - np.uint32(least - np.uint32(0x00800000)))
    normal = np.uint32(np.uint32(rebased + half + odd) >> shift)
    subnormal = np.uint32(float_bits(from_bits(size) + magic) - float_bits(magic))
    # compared as floats: LLVM makes of integers' comparison and difference one step, which has no vectors
    result = subnormal if from_bits(size) < from_bits(least) else normal
    result = infinity if result > infinity else result
    # what is far too large would run over
    result = infinity if size >= np.uint32(0x7F000000) else result
    result = nan if size > np.uint32(0x7F800000) else result
    return np.uint32(result)


@inlined
def sign_of(x: Any) -> Any:
    """The sign bit of an FP32, in place."""
    return np.uint32(float_bits(x) & np.uint32(0x80000000))


@inlined
def portable_to_fp16(x: Any) -> Any:
    """The bits of the nearest FP16, without instructions for it."""
    size = narrowed(
        x,
        np.uint32(13),
        np.uint32(113 << 23),
        np.float32(0.5),
        np.uint32(0x7C00),
        np.uint32(0x7E00),
    )
    return np.uint16(size | np.uint32(sign_of(x) >> np.uint32(16)))


@inlined
def portable_from_fp16(bits: Any) -> Any:
    """The FP32 of an FP16's bits, without instructions for it."""
    size = np.uint32(np.uint32(bits & np.uint16(0x7FFF)) << np.uint32(13))
    sign = np.uint32(np.uint32(bits & np.uint16(0x8000)) << np.uint32(16))
    # the exponent's bias is made up for by a product, which is exact and makes subnormals normal
    scaled = float_bits(from_bits(size) * np.float32(2.0**112))
    special = np.uint32(size | np.uint32(0x7F800000))
    result = special if size >= np.uint32(0x0F800000) else scaled
    return from_bits(np.uint32(result | sign))


@inlined
def to_bf16(x: Any) -> Any:
    """The bits of the nearest BF16."""
    bits = float_bits(x)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.uint32(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    quiet = np.uint32(np.uint32(bits >> np.uint32(16)) | np.uint32(0x40))
    is_nan = np.uint32(bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.uint16(quiet if is_nan else rounded)


@inlined
def from_bf16(bits: Any) -> Any:
    """The FP32 of a BF16's bits."""
    return from_bits(np.uint32(np.uint32(bits) << np.uint32(16)))


@inlined
def _native_to_fp16(x: Any) -> Any:
    return _instruction_to_fp16(x)


@inlined
def _native_from_fp16(bits: Any) -> Any:
    return _instruction_from_fp16(bits)


to_fp16: Final = _native_to_fp16 if HAS_FP16 else portable_to_fp16
"""The bits of the nearest FP16."""
from_fp16: Final = _native_from_fp16 if HAS_FP16 else portable_from_fp16
"""The FP32 of an FP16's bits."""
