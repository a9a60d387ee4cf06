"""What can't be run on says so, in one sentence."""

from __future__ import annotations

import importlib
import sys

import pytest

from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.cuda import runner


@pytest.mark.parametrize("threads", [0, -1])
def test_a_cpu_has_a_thread_at_least(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads is {threads}; expected 1 or more"):
        Cpu(threads=threads)


def test_without_its_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = runner.__name__
    monkeypatch.delitem(sys.modules, name)
    # the attribute of the package is set anew by each import
    monkeypatch.setattr(sys.modules["penstock_kernels.cuda"], "runner", runner)
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'penstock\[cuda\]'"):
        importlib.import_module(name)


@pytest.mark.parametrize(
    "said", ["the driver is\nnot there", "CUDA_ERROR_INVALID_DEVICE"], ids=["driver", "number"]
)
def test_without_a_gpu_it_says_what_is_needed(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def device(ordinal: int) -> None:
        raise OSError(said)

    monkeypatch.setattr(runner, "Device", device)
    with pytest.raises(
        runner.NoGpu, match=r"GPU 7 can't be used \(.*an NVIDIA GPU .* its driver"
    ) as e:
        runner.Cuda(7)
    assert "\n" not in str(e.value)
