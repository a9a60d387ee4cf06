"""Numbers in 8 bits and back: int8, with or without a zero point, and FP8 (ml_dtypes' float8_e4m3fn and float8_e5m2).

One scale for a whole tensor (a number, or an array without dimensions), or one for each index along an axis. What is
too large becomes the largest there is, infinities too; NaN becomes the zero point in int8, and stays NaN in FP8.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
from ml_dtypes import float8_e4m3fn, float8_e5m2

from penstock_kernels.checks import (
    FLOAT32,
    float_suffix,
    require_float32,
    require_given,
    require_out,
)
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Array, Runner, contiguous

INT8: Final = np.dtype(np.int8)
E4M3: Final = np.dtype(float8_e4m3fn)
E5M2: Final = np.dtype(float8_e5m2)
FP8_BITS: Final = np.dtype(np.uint8)
"""How FP8 comes on a GPU, for DLPack doesn't know it."""
NAMES: Final = {INT8: "int8", E4M3: "e4m3", E5M2: "e5m2"}
LARGEST: Final = {INT8: 127.0, E4M3: 448.0, E5M2: 57344.0}
"""What the largest finite element becomes."""

RUN: Final = 1 << 16
"""A tensor with one scale is divided in runs of about so many elements, so that threads can share it."""


class Layout(NamedTuple):
    """A tensor as runs of elements of one channel."""

    channels: int
    inner: int
    """Elements of a run."""


def quantise(
    x: Array,
    scale: Array | float,
    on: Runner,
    dtype: Any = np.int8,
    zero_point: Array | int | None = None,
    axis: int | None = None,
    out: Array | None = None,
) -> Array:
    """FP32 of any shape → round(x / scale) + zero_point as int8, or x / scale as FP8, of two that are as near the even
    one. On a GPU FP16 and BF16 too; there `scale` (FP32) and `zero_point` (int8) are arrays in its memory, an element a
    channel."""
    wanted = _known(dtype, zero_point)
    if not isinstance(on, Cpu):
        kernel, bits = f"quantise_{NAMES[wanted]}", INT8 if wanted == INT8 else FP8_BITS
        on_gpu: Array = _on_gpu(kernel, x, scale, on, zero_point, axis, out, bits)
        return on_gpu
    from penstock_kernels.cpu import quantise as twins

    require_float32(x)
    layout = _layout(x.shape, axis)
    scales = _per_channel(scale, layout, "scale")
    x = contiguous(x)
    result: Array = _made(out, x.shape, wanted)
    flat, written = x.reshape(-1), result.reshape(-1)
    task: Callable[[Array, Array, int, int, int], None]
    if wanted == INT8:
        zeros = _per_channel(0 if zero_point is None else zero_point, layout, "zero_point")
        task = lambda x, out, inner, begin, end: twins.quantise_int8(  # noqa: E731
            x, scales, zeros, inner, out, begin, end
        )
    else:
        written = written.view(np.uint8)
        fp8 = twins.quantise_e5m2 if wanted == E5M2 else twins.quantise_e4m3
        task = lambda x, out, inner, begin, end: fp8(x, scales, inner, out, begin, end)  # noqa: E731
    _split(on, task, flat, written, layout)
    return result


def dequantise(
    x: Array,
    scale: Array | float,
    on: Runner,
    zero_point: Array | int | None = None,
    axis: int | None = None,
    out: Array | None = None,
    dtype: Any = None,
) -> Array:
    """int8 or FP8 of any shape → (x - zero_point) * scale, FP32. `dtype`: of `x`, where that are bits, as uint8."""
    given = _known(x.dtype if dtype is None else dtype, zero_point)
    if not isinstance(on, Cpu):
        kernel = f"dequantise_{NAMES[given]}"
        on_gpu: Array = _on_gpu(kernel, x, scale, on, zero_point, axis, out, FLOAT32)
        return on_gpu
    from penstock_kernels.cpu import quantise as twins

    _check_bits(x, given)
    layout = _layout(x.shape, axis)
    scales = _per_channel(scale, layout, "scale")
    x = contiguous(x)
    result: Array = _made(out, x.shape, FLOAT32)
    flat, written = x.reshape(-1).view(given), result.reshape(-1)
    task: Callable[[Array, Array, int, int, int], None]
    if given == INT8:
        zeros = _per_channel(0 if zero_point is None else zero_point, layout, "zero_point")
        task = lambda x, out, inner, begin, end: twins.dequantise_int8(  # noqa: E731
            x, scales, zeros, inner, out, begin, end
        )
    else:
        flat = flat.view(np.uint8)
        table = np.arange(256, dtype=np.uint8).view(given).astype(np.float32)
        task = lambda x, out, inner, begin, end: twins.dequantise_fp8(  # noqa: E731
            x, scales, table, inner, out, begin, end
        )
    _split(on, task, flat, written, layout)
    return result


def absmax_scale(
    x: Array, on: Runner, dtype: Any = np.int8, axis: int | None = None, out: Array | None = None
) -> Array:
    """The scale, or one a channel, with which the largest finite size just fits: 127 in int8, 448 in E4M3FN, 57344 in
    E5M2. NaN and infinities are not looked at. 1 where nothing else than 0 is left."""
    wanted = _known(dtype, None)
    if not isinstance(on, Cpu):
        on_gpu: Array = _absmax_on_gpu(x, on, LARGEST[wanted], axis, out)
        return on_gpu
    from penstock_kernels.cpu import quantise as twins

    require_float32(x)
    layout = _layout(x.shape, axis)
    flat = contiguous(x).reshape(-1).view(np.int32)
    channels, inner, parts = _parts(layout, flat.size, axis)
    found = np.zeros(channels, np.int32)
    if flat.size:
        on.split(
            channels,
            flat.nbytes,
            lambda begin, end: twins.largest(flat[:parts], channels, inner, found, begin, end),
        )
        if parts < flat.size:
            twins.largest(flat[parts:], 1, flat.size - parts, found[:1], 0, 1)
    if axis is None and channels > 1:
        found = found.max(keepdims=True)
    scales = np.empty(found.size, np.float32)
    twins.fit_largest(found, np.float32(LARGEST[wanted]), scales)
    return _given(scales.reshape(()) if axis is None else scales, out)


def range_scale(x: Array, on: Cpu, axis: int | None = None) -> tuple[Array, Array]:
    """Scale and zero point, or one a channel, with which all finite values just fit into int8, 0 always exactly. NaN
    and infinities are not looked at. Scale 1 and zero point 0 where nothing else than 0 is left."""
    from penstock_kernels.cpu import quantise as twins

    require_float32(x)
    layout = _layout(x.shape, axis)
    flat = contiguous(x).reshape(-1).view(np.int32)
    channels, inner, parts = _parts(layout, flat.size, axis)
    # 0 is always among them
    low, high = np.zeros(channels, np.int32), np.zeros(channels, np.int32)
    if flat.size:
        on.split(
            channels,
            flat.nbytes,
            lambda begin, end: twins.extremes(flat[:parts], channels, inner, low, high, begin, end),
        )
        if parts < flat.size:
            twins.extremes(flat[parts:], 1, flat.size - parts, low[:1], high[:1], 0, 1)
    if axis is None and channels > 1:
        low, high = low.min(keepdims=True), high.max(keepdims=True)
    scale, zero = np.empty(low.size, np.float32), np.empty(low.size, np.int8)
    twins.fit_range(low, high, scale, zero)
    return (scale.reshape(()), zero.reshape(())) if axis is None else (scale, zero)


def _known(dtype: Any, zero_point: Array | int | None) -> np.dtype[Any]:
    wanted: np.dtype[Any] = np.dtype(dtype)
    if wanted not in NAMES:
        raise TypeError(f"dtype is {wanted}; expected int8, float8_e4m3fn or float8_e5m2")
    if zero_point is not None and wanted != INT8:
        raise TypeError(f"zero_point is given for {wanted}; expected none but for int8")
    return wanted


def _made(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return np.empty(shape, dtype) if out is None else require_out(out, shape, dtype)


def _check_bits(x: Array, given: np.dtype[Any]) -> None:
    """Elements of more bytes would be taken for so many more of one."""
    if x.dtype not in (given, np.dtype(np.uint8)):
        raise TypeError(f"x is {x.dtype}; expected {given}, or its bits as uint8")


def _layout(shape: tuple[int, ...], axis: int | None) -> Layout:
    if axis is None:
        return Layout(1, max(prod(shape), 1))
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis is {axis}; expected one of {len(shape)} dimensions")
    axis %= len(shape)
    return Layout(shape[axis], prod(shape[axis + 1 :]))


def _per_channel(given: Array | float, layout: Layout, name: str) -> Array:
    """As FP32, one a channel. Raises ValueError for any other number of them."""
    values = np.ascontiguousarray(given, np.float32).reshape(-1)
    if values.size not in (1, layout.channels):
        raise ValueError(f"{name} has {values.size} values; expected 1 or {layout.channels}")
    if values.size == 1 and layout.channels != 1:
        values = np.full(layout.channels, values[0])
    return values


def _split(
    on: Cpu,
    task: Callable[[Array, Array, int, int, int], None],
    x: Array,
    out: Array,
    layout: Layout,
) -> None:
    """Have it done in runs. Those of a tensor with one scale may be of any length."""
    channels, inner = layout
    touched = x.nbytes + out.nbytes
    if channels > 1 or not x.size:
        rows = x.size // max(channels * inner, 1) * (1 if inner == 1 else channels)
        on.split(rows, touched, lambda begin, end: task(x, out, inner, begin, end))
        return
    inner = min(x.size, RUN)
    whole = x.size // inner
    on.split(whole, touched, lambda begin, end: task(x, out, inner, begin, end))
    if rest := x.size - whole * inner:
        task(x[-rest:], out[-rest:], rest, 0, 1)


def _parts(layout: Layout, size: int, axis: int | None) -> tuple[int, int, int]:
    """Channels and elements of a run for searching, and how many elements these are: a tensor with one scale is as
    many channels as its runs."""
    if axis is not None or size <= RUN:
        return layout.channels, max(layout.inner, 1), size
    return size // RUN, RUN, size // RUN * RUN


def _given(values: Array, out: Array | None) -> Array:
    if out is None:
        return values
    out[...] = values
    return out


def _on_gpu(
    kernel: str,
    x: Any,
    scale: Any,
    on: Any,
    zero_point: Any,
    axis: int | None,
    out: Any,
    dtype: np.dtype[Any],
) -> Any:
    """`dtype`: of `out`."""
    from penstock_kernels.cuda.arrays import checked_pointer, dtype_of, pointer, view_of

    shape = tuple(view_of(x).shape)
    out, layout, size = require_given(out), _layout(shape, axis), prod(shape)
    if kernel.startswith("quantise"):
        kernel += f"_{float_suffix(dtype_of(x), 'x')}"
    on.run(
        "quantise",
        kernel,
        -(-size // 256),
        pointer(x),
        _of_channels(scale, FLOAT32, "scale", layout.channels),
        0 if zero_point is None else _of_channels(zero_point, INT8, "zero_point", layout.channels),
        *map(np.int64, (size, layout.channels, layout.inner)),
        checked_pointer(out, dtype, "out", shape),
    )
    return out


def _absmax_on_gpu(x: Any, on: Any, largest: float, axis: int | None, out: Any) -> Any:
    from penstock_kernels.cuda.arrays import dtype_of, pointer, size_of, view_of

    channels, inner = _layout(tuple(view_of(x).shape), axis)
    out, size = require_given(out), size_of(x)
    kind = float_suffix(dtype_of(x), "x")
    written = _of_channels(out, FLOAT32, "out", channels)
    blocks = -(-channels // 256)
    on.run("quantise", "clear", blocks, written, np.int64(channels))
    # some blocks for each channel, that each look at some thousands of its elements
    parts = max(1, min(256, -(-size // max(channels * 4096, 1))))
    numbers = map(np.int64, (size, channels, inner, parts))
    blocks_of_channels = channels * parts if size else 0
    on.run("quantise", f"absmax_{kind}", blocks_of_channels, pointer(x), *numbers, written)
    on.run("quantise", "to_scale", blocks, written, np.int64(channels), np.float32(largest))
    return out


def _of_channels(array: Any, dtype: np.dtype[Any], name: str, channels: int) -> int:
    """The pointer of an array on a GPU that has one element a channel."""
    from penstock_kernels.cuda.arrays import checked_pointer, size_of

    found = checked_pointer(array, dtype, name)
    if size_of(array) != channels:
        raise ValueError(f"{name} has {size_of(array)} values; expected {channels}")
    return found
