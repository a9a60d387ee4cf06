"""FP16 and BF16 to FP32 and back, against NumPy and ml_dtypes: all 16-bit patterns, and FP32 around each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from machines import Machine
from penstock_kernels.convert import from_fp32, to_fp32
from penstock_kernels.cpu import bits
from penstock_kernels.cpu.jit import jit
from penstock_kernels.cpu.runner import Cpu

pytestmark = [
    # NumPy's own, of NaN and of what becomes infinite
    pytest.mark.filterwarnings("ignore:invalid value encountered in cast"),
    pytest.mark.filterwarnings("ignore:overflow encountered in cast"),
]

DTYPES = pytest.mark.parametrize("dtype", [np.float16, bfloat16])

Array = np.ndarray[Any, Any]


def all_patterns(dtype: Any) -> Array:
    return np.arange(2**16, dtype=np.uint16).view(dtype)


def around(dtype: Any) -> Array:
    """Each pattern as FP32, the middle between it and the next, and both sides of that."""
    exact = all_patterns(dtype).astype(np.float32).view(np.uint32)
    middle = np.uint32(0x1000 if dtype == np.float16 else 0x8000)
    near = [exact, exact + middle - 1, exact + middle, exact + middle + 1, exact - 1]
    return np.concatenate(near).view(np.float32)


def equal(found: Array, expected: Array) -> bool:
    """Of the same format and bits, but for which NaN it is."""
    nan = np.isnan(expected.astype(np.float64))
    integer = np.dtype(f"u{found.dtype.itemsize}")
    same = found.view(integer) == expected.view(integer)
    numbers = bool(same[~nan].all())
    return numbers and bool(np.isnan(found.astype(np.float64))[nan].all())


@DTYPES
def test_all_patterns_become_fp32(dtype: Any, machine: Machine) -> None:
    x = all_patterns(dtype)
    out = to_fp32(machine.put(x), machine.on, machine.empty(x.shape, np.float32))
    assert equal(machine.get(out, np.float32), x.astype(np.float32))


@DTYPES
def test_fp32_is_rounded_to_nearest_even(dtype: Any, machine: Machine) -> None:
    x = np.concatenate([around(dtype), np.array([3e38, -3e38, np.inf, -np.inf, 1e-45], np.float32)])
    out = from_fp32(machine.put(x), dtype, machine.on, machine.empty(x.shape, dtype))
    assert equal(machine.get(out, dtype), x.astype(dtype))


def test_without_instructions_for_fp16_it_is_the_same() -> None:
    @jit
    def there(x: Array, out: Array) -> None:
        for i in range(x.size):
            out[i] = bits.portable_to_fp16(x[i])

    @jit
    def back(x: Array, out: Array) -> None:
        for i in range(x.size):
            out[i] = bits.portable_from_fp16(x[i])

    x = around(np.float16)
    short = np.empty(x.shape, np.uint16)
    there(x, short)
    assert equal(short.view(np.float16), x.astype(np.float16))
    patterns = all_patterns(np.float16)
    wide = np.empty(patterns.shape, np.float32)
    back(patterns.view(np.uint16), wide)
    assert equal(wide, patterns.astype(np.float32))


@DTYPES
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (7, 5), (301, 1031)], ids=str)
def test_shapes(dtype: Any, shape: tuple[int, ...], machine: Machine, rng: Any) -> None:
    x = rng.normal(size=shape).astype(np.float32)
    out = from_fp32(machine.put(x), dtype, machine.on, machine.empty(shape, dtype))
    found = machine.get(out, dtype)
    assert found.shape == shape
    np.testing.assert_array_equal(found, x.astype(dtype))
    wide = to_fp32(machine.put(found), machine.on, machine.empty(shape, np.float32))
    np.testing.assert_array_equal(machine.get(wide, np.float32), found.astype(np.float32))


@DTYPES
def test_strided_elements(dtype: Any, cpu: Cpu, rng: Any) -> None:
    x = rng.normal(size=(8, 9)).astype(np.float32)
    for view in (x.T, x[::2, ::-3]):
        np.testing.assert_array_equal(from_fp32(view, dtype, cpu), view.astype(dtype))


def test_other_formats_are_refused(cpu: Cpu) -> None:
    with pytest.raises(TypeError, match="float64 can't be made float32"):
        to_fp32(np.zeros(3), cpu)
    with pytest.raises(TypeError, match="float32 can't be made int8"):
        from_fp32(np.zeros(3, np.float32), np.int8, cpu)


def test_results_are_written_only_where_they_fit(cpu: Cpu) -> None:
    x = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"out has shape \[11\]; expected \[4, 3\]"):
        from_fp32(x, np.float16, cpu, np.zeros(11, np.float16))
    with pytest.raises(TypeError, match="out is of bfloat16; expected float16"):
        from_fp32(x, np.float16, cpu, np.zeros((4, 3), bfloat16))
    with pytest.raises(ValueError, match="out can't be written; expected a writeable array in C"):
        to_fp32(x.astype(bfloat16), cpu, np.zeros((3, 4), np.float32).T)
