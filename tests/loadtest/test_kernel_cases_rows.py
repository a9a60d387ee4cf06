"""What is compared is the same."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Array
from penstock_loadtest.kernel_case import KernelCase
from penstock_loadtest.kernel_cases_rows import CASES


def arrays(result: object) -> list[Array]:
    """Of one, of several, or of what writes into its arguments."""
    several = result if isinstance(result, tuple) else (result,)
    return [array for array in several if isinstance(array, np.ndarray)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}, {case.size}")
def test_twin_and_numpy_agree(case: KernelCase) -> None:
    twin, replaced = case.make(np.random.default_rng(7))
    for own, other in zip(arrays(twin(Cpu())), arrays(replaced()), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-6)
    assert case.touched_bytes > 0
