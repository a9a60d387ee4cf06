"""What the kernels run on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from penstock_kernels.cpu.runner import Cpu


@pytest.fixture(scope="module", params=[1, 3], ids=["1 thread", "3 threads"])
def cpu(request: pytest.FixtureRequest) -> Iterator[Cpu]:
    cpu = Cpu(request.param)
    yield cpu
    cpu.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
