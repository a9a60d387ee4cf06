"""8 bits and back, against float64 NumPy and ml_dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from ml_dtypes import float8_e4m3fn, float8_e5m2

from machines import Machine
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.quantise import (
    LARGEST,
    absmax_scale,
    dequantise,
    quantise,
    range_scale,
)

FP8 = pytest.mark.parametrize("dtype", [float8_e4m3fn, float8_e5m2])
SHAPES = pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((), None),
        ((0,), None),
        ((0, 3), 1),
        ((2, 0), 0),
        ((1,), 0),
        ((65537,), None),
        ((700, 401), None),
        ((129, 257), 0),
        ((257, 129), -1),
        ((3, 5, 7, 2), 1),
        ((3, 5, 7, 2), -2),
    ],
    ids=str,
)

Array = np.ndarray[Any, Any]


def spread(values: Array, shape: tuple[int, ...], axis: int | None) -> Array:
    """Scales or zero points, so that they fit `shape`."""
    if axis is None:
        return values
    axis %= len(shape)
    return values.reshape(-1, *[1] * (len(shape) - axis - 1))


def sizes(x: Array, axis: int | None) -> Array:
    """The largest finite sizes."""
    finite = np.where(np.isfinite(x), np.abs(x.astype(np.float64)), 0)
    axes = None if axis is None else tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    return np.asarray(finite.max(axis=axes, initial=0))


@SHAPES
@pytest.mark.parametrize("dtype", [np.int8, float8_e4m3fn, float8_e5m2])
def test_the_largest_just_fits(
    shape: tuple[int, ...], axis: int | None, dtype: Any, machine: Machine, rng: Any
) -> None:
    x = (rng.normal(size=shape) * rng.lognormal(sigma=3, size=shape)).astype(np.float32)
    expected = sizes(x, axis) / LARGEST[np.dtype(dtype)]
    out = machine.empty(expected.shape, np.float32)
    scale = machine.get(absmax_scale(machine.put(x), machine.on, dtype, axis, out), np.float32)
    assert scale.shape == expected.shape
    np.testing.assert_allclose(scale, np.where(expected > 0, expected, 1), rtol=1e-6)


@SHAPES
def test_int8(shape: tuple[int, ...], axis: int | None, machine: Machine, rng: Any) -> None:
    x = rng.normal(scale=3, size=shape).astype(np.float32)
    channels = () if axis is None else (shape[axis],)
    scale = rng.uniform(0.01, 0.1, size=channels).astype(np.float32)
    zero = rng.integers(-20, 20, size=channels).astype(np.int8)
    steps = x / spread(scale.astype(np.float64), shape, axis) + spread(zero, shape, axis)
    arguments = machine.put(np.asarray(scale)), machine.on
    out = quantise(
        machine.put(x),
        *arguments,
        np.int8,
        machine.put(np.asarray(zero)),
        axis,
        machine.empty(shape, np.int8),
    )
    found = machine.get(out, np.int8)
    # of two steps the nearer one, but for what FP32's own rounding does in the middle
    error = np.abs(found - np.clip(steps, -128, 127))
    assert found.shape == shape
    assert (error <= 0.5 + 1e-4).all()
    back = dequantise(
        machine.put(found),
        *arguments,
        machine.put(np.asarray(zero)),
        axis,
        machine.empty(shape, np.float32),
    )
    expected = (found.astype(np.float64) - spread(zero, shape, axis)) * spread(scale, shape, axis)
    np.testing.assert_allclose(machine.get(back, np.float32), expected, rtol=1e-6)


@FP8
@SHAPES
def test_fp8(
    shape: tuple[int, ...], axis: int | None, dtype: Any, machine: Machine, rng: Any
) -> None:
    x = (rng.normal(size=shape) * rng.lognormal(sigma=4, size=shape)).astype(np.float32)
    scale = np.asarray(absmax_scale(x, Cpu(1), dtype, axis))
    on_machine = machine.put(scale)
    out = machine.empty(shape, dtype)
    found = machine.get(
        quantise(machine.put(x), on_machine, machine.on, dtype, axis=axis, out=out), dtype
    )
    expected = (x / spread(scale, shape, axis)).astype(dtype)
    np.testing.assert_array_equal(found.view(np.uint8), expected.view(np.uint8))
    out = machine.empty(shape, np.float32)
    back = dequantise(machine.put(found), on_machine, machine.on, axis=axis, out=out, dtype=dtype)
    np.testing.assert_array_equal(
        machine.get(back, np.float32), found.astype(np.float32) * spread(scale, shape, axis)
    )


@FP8
def test_fp8_around_each_pattern(dtype: Any, machine: Machine) -> None:
    patterns = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    exact = np.sort(patterns[np.isfinite(patterns)])
    middle = (exact[1:] + exact[:-1]) / 2
    near = [exact, middle, np.nextafter(middle, np.float32(9e9)), np.nextafter(middle, -middle)]
    x = np.concatenate(near).astype(np.float32)
    out = quantise(
        machine.put(x),
        machine.put(np.array([1], np.float32)),
        machine.on,
        dtype,
        out=machine.empty(x.shape, dtype),
    )
    found = machine.get(out, dtype).view(np.uint8)
    np.testing.assert_array_equal(found, x.astype(dtype).view(np.uint8))


@pytest.mark.parametrize(
    ("dtype", "low", "high", "nan"),
    [
        (np.int8, -128, 127, 7),
        (float8_e4m3fn, -448, 448, np.nan),
        (float8_e5m2, -57344, 57344, np.nan),
    ],
)
def test_what_is_too_large_or_no_number(
    dtype: Any, low: float, high: float, nan: float, machine: Machine
) -> None:
    zero = machine.put(np.array([7], np.int8)) if dtype == np.int8 else None
    x = np.array([np.inf, -np.inf, 3e38, -3e38, np.nan, -0.0], np.float32)
    out = machine.empty(x.shape, dtype)
    made = quantise(
        machine.put(x), machine.put(np.array([1], np.float32)), machine.on, dtype, zero, out=out
    )
    found = machine.get(made, dtype).astype(np.float32)
    at_zero = 7 if dtype == np.int8 else 0
    np.testing.assert_array_equal(found, np.array([high, low, high, low, nan, at_zero], np.float32))


def test_scales_don_t_look_at_what_is_no_number(machine: Machine) -> None:
    x = np.array([[np.nan, -127, np.inf], [np.nan, np.inf, 0], [1e-44, 0, 0]], np.float32)
    out = machine.empty((3,), np.float32)
    scale = machine.get(absmax_scale(machine.put(x), machine.on, np.int8, 0, out), np.float32)
    np.testing.assert_array_equal(scale[:2], [1, 1])
    assert scale[2] in (1, np.float32(1e-44) / np.float32(127))


@SHAPES
def test_a_range_just_fits(shape: tuple[int, ...], axis: int | None, cpu: Cpu, rng: Any) -> None:
    x = rng.normal(3, 2, size=shape).astype(np.float32)
    if x.size > 9:
        x.reshape(-1)[[2, 5, 7]] = np.nan, np.inf, -np.inf
    scale, zero = range_scale(x, cpu, axis)
    finite = np.where(np.isfinite(x), x, 0)
    found = dequantise(quantise(finite, scale, cpu, np.int8, zero, axis), scale, cpu, zero, axis)
    # one step more where the zero point had to be rounded
    assert (np.abs(found - finite) <= spread(np.asarray(scale), shape, axis) * 1.001).all()
    zeros = dequantise(
        quantise(finite * 0, scale, cpu, np.int8, zero, axis), scale, cpu, zero, axis
    )
    assert not zeros.any()


@settings(max_examples=30, deadline=None)
@given(array_shapes(min_dims=1, max_dims=4, max_side=9), st.data())
def test_any_view(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    order = data.draw(st.permutations(range(len(shape))))
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32).transpose(order)[::-1]
    cpu = Cpu(1)
    scale = absmax_scale(x, cpu, axis=axis)
    np.testing.assert_allclose(scale, sizes(x, axis) / 127, rtol=1e-6)
    found = quantise(x, scale, cpu, axis=axis)
    expected = np.rint(x / spread(scale, x.shape, axis))
    np.testing.assert_array_equal(found, expected)


def test_what_does_not_fit_is_refused(cpu: Cpu) -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="scale has 2 values; expected 1 or 3"):
        quantise(x, np.array([1, 2], np.float32), cpu, axis=1)
    with pytest.raises(ValueError, match="axis is 2; expected one of 2 dimensions"):
        quantise(x, 1.0, cpu, axis=2)
    with pytest.raises(TypeError, match="dtype is float16; expected int8"):
        quantise(x, 1.0, cpu, np.float16)
    with pytest.raises(TypeError, match="zero_point is given for float8_e5m2"):
        quantise(x, 1.0, cpu, float8_e5m2, 3)
    with pytest.raises(TypeError, match="x is of float64; expected float32"):
        absmax_scale(np.zeros(3), cpu)
    with pytest.raises(ValueError, match=r"out has shape \[5\]; expected \[2, 3\]"):
        quantise(x, 1.0, cpu, out=np.zeros(5, np.int8))
    with pytest.raises(TypeError, match="out is of float64; expected float32"):
        dequantise(np.zeros((2, 3), np.int8), 1.0, cpu, out=np.zeros((2, 3)))
