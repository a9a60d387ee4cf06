"""Numbers in 8 bits. A tensor is `channels` runs of `inner` elements, again and again; each channel has a scale."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock_kernels.cpu import bits
from penstock_kernels.cpu.jit import inlined, jit
from penstock_kernels.cpu.order import float_of, ordered
from penstock_kernels.runner import Array


@inlined
def to_int8(x: Any, scale: Any, zero_point: Any) -> Any:
    """The nearest step, of two the even one."""
    step = np.float32(np.rint(x / scale)) + zero_point
    step = np.float32(-128) if step < np.float32(-128) else step
    step = np.float32(127) if step > np.float32(127) else step
    # NaN
    step = step if step == step else zero_point
    return np.int8(np.int32(step))


@inlined
def to_e4m3(x: Any, scale: Any, _: Any) -> Any:
    """The bits of the nearest E4M3FN, what is too large as the largest one."""
    value = np.float32(x / scale)
    size = bits.narrowed(
        value,
        np.uint32(20),
        np.uint32(121 << 23),
        np.float32(2.0**14),
        np.uint32(0x7E),
        np.uint32(0x7F),
    )
    return np.uint8(size | np.uint32(bits.sign_of(value) >> np.uint32(24)))


@inlined
def to_e5m2(x: Any, scale: Any, _: Any) -> Any:
    """The bits of the nearest E5M2, what is too large as the largest one."""
    value = np.float32(x / scale)
    size = bits.narrowed(
        value,
        np.uint32(21),
        np.uint32(113 << 23),
        np.float32(2.0**7),
        np.uint32(0x7B),
        np.uint32(0x7E),
    )
    return np.uint8(size | np.uint32(bits.sign_of(value) >> np.uint32(24)))


@inlined
def of_int8(x: Any, scale: Any, zero_point: Any) -> Any:
    """What a step stands for."""
    return (np.float32(x) - zero_point) * scale


@inlined
def by_channels(
    convert: Any,
    x: Array,
    scale: Array,
    zero_point: Array,
    inner: int,
    out: Array,
    begin: int,
    end: int,
) -> None:
    """Each element by `convert(element, scale, zero_point)`: runs begin:end where a run has more than one element; else
    elements, a channel each, `scale.size` to a row. Compiled for each `convert`, whose type is its own."""
    channels = scale.size
    if inner == 1:
        for row in range(begin, end):
            given = x[row * channels : (row + 1) * channels]
            made = out[row * channels : (row + 1) * channels]
            for i in range(channels):
                made[i] = convert(given[i], scale[i], zero_point[i])
        return
    for run in range(begin, end):
        given, made = x[run * inner : (run + 1) * inner], out[run * inner : (run + 1) * inner]
        own, zero = scale[run % channels], zero_point[run % channels]
        for i in range(inner):
            made[i] = convert(given[i], own, zero)


@jit
def quantise_int8(
    x: Array, scale: Array, zero_point: Array, inner: int, out: Array, begin: int, end: int
) -> None:
    """As `by_channels`."""
    by_channels(to_int8, x, scale, zero_point, inner, out, begin, end)


@jit
def quantise_e4m3(x: Array, scale: Array, inner: int, out: Array, begin: int, end: int) -> None:
    """As `by_channels`."""
    by_channels(to_e4m3, x, scale, scale, inner, out, begin, end)


@jit
def quantise_e5m2(x: Array, scale: Array, inner: int, out: Array, begin: int, end: int) -> None:
    """As `by_channels`."""
    by_channels(to_e5m2, x, scale, scale, inner, out, begin, end)


@jit
def dequantise_int8(
    x: Array, scale: Array, zero_point: Array, inner: int, out: Array, begin: int, end: int
) -> None:
    """As `by_channels`."""
    by_channels(of_int8, x, scale, zero_point, inner, out, begin, end)


@jit
def dequantise_fp8(
    x: Array, scale: Array, table: Array, inner: int, out: Array, begin: int, end: int
) -> None:
    """As `by_channels`. `table`: the value of each of the 256 bit patterns."""
    channels = scale.size
    if inner == 1:
        for row in range(begin, end):
            given = x[row * channels : (row + 1) * channels]
            made = out[row * channels : (row + 1) * channels]
            for i in range(channels):
                made[i] = table[given[i]] * scale[i]
        return
    for run in range(begin, end):
        given, made = x[run * inner : (run + 1) * inner], out[run * inner : (run + 1) * inner]
        own = scale[run % channels]
        for i in range(inner):
            made[i] = table[given[i]] * own


@jit
def largest(x: Array, channels: int, inner: int, out: Array, begin: int, end: int) -> None:
    """The bits of the largest finite size in channels begin:end. `x`: the bits of FP32 as int32, for integers of the
    same sign are in the same order, and compared many at a time."""
    rows = x.size // (channels * inner)
    for row in range(rows):
        if inner == 1:
            given = x[row * channels + begin : row * channels + end]
            made = out[begin:end]
            for i in range(end - begin):
                size = np.int32(given[i] & np.int32(0x7FFFFFFF))
                size = size if size < np.int32(0x7F800000) else np.int32(0)
                made[i] = max(made[i], size)
            continue
        for channel in range(begin, end):
            at = (row * channels + channel) * inner
            given = x[at : at + inner]
            most = out[channel]
            for i in range(inner):
                size = np.int32(given[i] & np.int32(0x7FFFFFFF))
                size = size if size < np.int32(0x7F800000) else np.int32(0)
                most = max(most, size)
            out[channel] = most


@jit
def extremes(
    x: Array, channels: int, inner: int, low: Array, high: Array, begin: int, end: int
) -> None:
    """The least and the largest finite value in channels begin:end, as integers in the order of the values. `x` as
    in `largest`."""
    rows = x.size // (channels * inner)
    for row in range(rows):
        if inner == 1:
            given = x[row * channels + begin : row * channels + end]
            lows, highs = low[begin:end], high[begin:end]
            for i in range(end - begin):
                value = finite_order(given[i])
                lows[i] = min(lows[i], value)
                highs[i] = max(highs[i], value)
            continue
        for channel in range(begin, end):
            at = (row * channels + channel) * inner
            given = x[at : at + inner]
            least, most = low[channel], high[channel]
            for i in range(inner):
                value = finite_order(given[i])
                least = min(least, value)
                most = max(most, value)
            low[channel], high[channel] = least, most


@jit
def fit_largest(found: Array, largest: Any, scale: Array) -> None:
    """Scales of what `largest` has found; 1 where that is 0, which nothing can be divided by."""
    for channel in range(found.size):
        own = float_of(found[channel]) / largest
        scale[channel] = own if own > 0 else np.float32(1)


@jit
def fit_range(low: Array, high: Array, scale: Array, zero_point: Array) -> None:
    """Scales and zero points of what `extremes` has found; 1 and 0 where all is 0."""
    for channel in range(low.size):
        least, most = np.float64(value_of(low[channel])), np.float64(value_of(high[channel]))
        own = np.float32((most - least) / 255)
        scale[channel], zero_point[channel] = np.float32(1), np.int8(0)
        if own > 0:
            scale[channel] = own
            zero_point[channel] = np.int8(min(max(np.rint(-128 - least / own), -128.0), 127.0))


@inlined
def finite_order(x: Any) -> Any:
    """The bits of an FP32, so that integers are in the order of the values; 0 for what is not finite."""
    size = np.int32(x & np.int32(0x7FFFFFFF))
    return ordered(x) if size < np.int32(0x7F800000) else np.int32(0)


@inlined
def value_of(order: Any) -> Any:
    """The FP32 that `finite_order` made this integer of."""
    return float_of(ordered(order))
