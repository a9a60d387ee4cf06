"""Arrays that don't fit: an error says so, and nothing is written. The twins themselves look at no bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16, float8_e4m3fn

from penstock_kernels.activations import sigmoid
from penstock_kernels.convert import from_fp32, to_fp32
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.images import ImageRecipe, preprocess, preprocess_ragged
from penstock_kernels.quantise import dequantise, quantise

Function = Callable[[Any, Cpu], Any]

X = np.ones((4, 1000), np.float32)
OPERATIONS: dict[str, tuple[Any, Callable[[Any, Cpu], Any]]] = {
    "sigmoid": (np.float32, lambda out, on: sigmoid(X, on, out)),
    "to_fp32": (np.float32, lambda out, on: to_fp32(X.astype(np.float16), on, out)),
    "widened by ml_dtypes": (np.float32, lambda out, on: to_fp32(X.astype(bfloat16), on, out)),
    "from_fp32": (np.float16, lambda out, on: from_fp32(X, np.float16, on, out)),
    "quantise": (np.int8, lambda out, on: quantise(X, 0.5, on, out=out)),
    "quantise, FP8": (float8_e4m3fn, lambda out, on: quantise(X, 1, on, float8_e4m3fn, out=out)),
    "dequantise": (np.float32, lambda out, on: dequantise(X.astype(np.int8), 0.5, on, out=out)),
    "preprocess": (
        np.float32,
        lambda out, on: preprocess(np.zeros((5, 5, 4), np.uint8), ImageRecipe(4, 1, 1000), on, out),
    ),
}


@pytest.fixture(params=OPERATIONS)
def operation(request: pytest.FixtureRequest) -> tuple[np.dtype[Any], Function]:
    dtype, function = OPERATIONS[request.param]
    return np.dtype(dtype), function


def _memory(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.uint8 if dtype.itemsize == 1 else f"u{dtype.itemsize}").view(dtype)


def test_results_of_another_shape_are_refused(
    operation: tuple[np.dtype[Any], Function], cpu: Cpu
) -> None:
    dtype, function = operation
    whole = _memory((8000,), dtype)
    short = whole[:100]
    with pytest.raises(ValueError, match=r"out .*\[100\].* expected"):
        function(short, cpu)
    assert not whole.view(np.uint8).any()


def test_results_that_cannot_be_written_are_refused(
    operation: tuple[np.dtype[Any], Function], cpu: Cpu
) -> None:
    dtype, function = operation
    given = (4, 1, 1000) if function is OPERATIONS["preprocess"][1] else X.shape
    fixed = _memory(given, dtype)
    fixed.flags.writeable = False
    spread = _memory((*given[:-1], 2000), dtype)[..., ::2]
    for out in (fixed, spread):
        with pytest.raises(ValueError, match=r"writeable"):
            function(out, cpu)
        assert not out.copy().view(np.uint8).any()


def test_results_of_another_type_are_refused(
    operation: tuple[np.dtype[Any], Function], cpu: Cpu
) -> None:
    given = (4, 1, 1000) if operation[1] is OPERATIONS["preprocess"][1] else X.shape
    with pytest.raises((TypeError, ValueError), match=r"int16.*expected"):
        operation[1](np.zeros(given, np.int16), cpu)


def test_sigmoid_is_of_fp32(cpu: Cpu) -> None:
    with pytest.raises(TypeError, match="x is of float64; expected float32"):
        sigmoid(np.ones(3), cpu)


@pytest.mark.parametrize("dtype", [float8_e4m3fn, np.int8])
def test_larger_elements_are_no_bits(dtype: Any, cpu: Cpu) -> None:
    with pytest.raises(TypeError, match=r"x is float32; expected .*8.*, or its bits as uint8"):
        dequantise(X, 1.0, cpu, dtype=dtype)


def test_bits_of_int8_have_their_sign(cpu: Cpu) -> None:
    bits = np.array([-3, 5], np.int8).view(np.uint8)
    np.testing.assert_array_equal(dequantise(bits, 1.0, cpu, dtype=np.int8), [-3, 5])


def test_two_negative_sides_are_no_image(cpu: Cpu) -> None:
    with pytest.raises(ValueError, match="size -2 x -3; expected at least 1 x 1"):
        preprocess_ragged(np.zeros(18, np.uint8), [(-2, -3)], ImageRecipe(3, 4, 4), cpu)
