"""Functions of single elements, against NumPy's in float64."""

from __future__ import annotations

import numpy as np
import pytest

from machines import Machine
from penstock_kernels.activations import sigmoid
from penstock_kernels.cpu.runner import Cpu


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 3), (2, 0, 5), (401, 1031)], ids=str)
def test_sigmoid(shape: tuple[int, ...], machine: Machine, rng: np.random.Generator) -> None:
    x = rng.normal(scale=20, size=shape).astype(np.float32)
    out = sigmoid(machine.put(x), machine.on, machine.empty(shape, np.float32))
    expected = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(machine.get(out, np.float32), expected, rtol=2e-6, atol=1e-38)


def test_sigmoid_of_what_is_no_number(cpu: Cpu) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0, -0.0], np.float32)
    np.testing.assert_array_equal(sigmoid(x, cpu), [1, 0, np.nan, 0.5, 0.5])


def test_sigmoid_of_strided_elements(cpu: Cpu, rng: np.random.Generator) -> None:
    x = rng.normal(size=(8, 9)).astype(np.float32)
    for view in (x.T, x[::2, ::-3]):
        np.testing.assert_array_equal(sigmoid(view, cpu), sigmoid(view.copy(), cpu))
