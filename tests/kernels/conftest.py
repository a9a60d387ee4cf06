"""What the kernels run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from machines import Machine, machine_of
from penstock_kernels.cpu.runner import Cpu


@pytest.fixture(scope="module", params=[1, 3], ids=["1 thread", "3 threads"])
def cpu(request: pytest.FixtureRequest) -> Iterator[Cpu]:
    cpu = Cpu(request.param)
    yield cpu
    cpu.close()


@pytest.fixture(scope="module", params=["1", "3", pytest.param("gpu", marks=pytest.mark.gpu)])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """The CPU with one and three threads, and the GPU where there is one."""
    if request.param == "gpu":
        # torch takes seconds to import
        if not Path("/dev/nvidiactl").exists():
            pytest.skip("there is no GPU")
        pytest.importorskip("torch")
    machine = machine_of(request.param)
    yield machine
    machine.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
