"""What is compared is the same."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_kernels.cpu.runner import Cpu
from penstock_loadtest.kernel_case import KernelCase
from penstock_loadtest.kernel_cases_rows import CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}, {case.size}")
def test_twin_and_numpy_agree(case: KernelCase) -> None:
    twin, replaced = case.make(np.random.default_rng(7))
    result, expected = twin(Cpu()), replaced()
    pairs = (
        zip(result, expected, strict=True)
        if isinstance(result, tuple) and isinstance(expected, tuple)
        else [(result, expected)]
    )
    for own, other in pairs:
        if own is not None:
            np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-6)
    assert case.touched_bytes > 0
