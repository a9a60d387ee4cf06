"""Which GPUs are found, over an NVML that is made up."""

from __future__ import annotations

import pytest

from fake_nvml import GIB, FakeGpu, FakeNvml
from penstock.devices.discovery import Inventory, discover
from penstock.devices.nvml import Nvml, load_nvml

TWO = FakeNvml([FakeGpu("GPU-aa11"), FakeGpu("GPU-ab22", "Tesla V100")])
DIVIDED = FakeNvml(
    [
        FakeGpu("GPU-aa11", parts=[FakeGpu("MIG-1", "A100 MIG 1g"), None, FakeGpu("MIG-2")]),
        FakeGpu("GPU-bb22"),
    ]
)


def found(nvml: Nvml, visible: str | None) -> list[str]:
    return [gpu.uuid for gpu in discover(nvml, visible).gpus]


def test_what_is_known_of_a_gpu() -> None:
    devices = discover(TWO, None)
    assert (devices.reason, devices.driver) == ("", "570.86.15")
    first, second = devices.gpus
    assert (first.index, first.uuid, first.memory_bytes) == (0, "GPU-aa11", 40 * GIB)
    assert (first.compute_capability, first.mig, first.device) == ((8, 0), False, "cuda:0")
    assert str(second) == "1 (Tesla V100)"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-aa11", "GPU-ab22"]),
        ("1,0", ["GPU-ab22", "GPU-aa11"]),
        (" 1 ", ["GPU-ab22"]),
        ("GPU-ab", ["GPU-ab22"]),
        # from the first that CUDA does not know on, it shows none
        ("1,7,0", ["GPU-ab22"]),
        ("GPU-a", []),
        ("0,0,1", ["GPU-aa11"]),
        ("-1", []),
        ("", []),
        ("²", []),
    ],
)
def test_what_cuda_shows(visible: str | None, expected: list[str]) -> None:
    assert found(TWO, visible) == expected


def test_numbers_are_those_of_what_is_visible() -> None:
    (gpu,) = discover(TWO, "1").gpus
    assert (gpu.index, gpu.name) == (0, "Tesla V100")


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["MIG-1", "MIG-2", "GPU-bb22"]),
        ("MIG-2", ["MIG-2"]),
        ("0,1", ["MIG-1", "GPU-bb22"]),
        ("GPU-aa11", []),
    ],
)
def test_a_divided_gpu_is_its_parts(visible: str | None, expected: list[str]) -> None:
    assert found(DIVIDED, visible) == expected
    assert all(gpu.mig == gpu.uuid.startswith("MIG-") for gpu in discover(DIVIDED, visible).gpus)


@pytest.mark.parametrize(
    ("nvml", "visible", "reason"),
    [
        (FakeNvml(no_driver=True), None, "NVML: Driver Not Loaded"),
        (FakeNvml(), None, "NVML finds none on this machine"),
        (TWO, "", "CUDA_VISIBLE_DEVICES is '', which leaves none of 2"),
    ],
)
def test_without_gpus_there_is_a_reason(nvml: Nvml, visible: str | None, reason: str) -> None:
    assert discover(nvml, visible).reason == reason


def test_an_inventory_looks_once() -> None:
    looks: list[str] = []

    def load() -> Nvml:
        looks.append("once")
        return TWO

    inventory = Inventory(None, load)
    assert looks == []
    assert inventory.found() is inventory.found()
    assert (looks, inventory.nvml) == (["once"], TWO)


def test_without_the_package() -> None:
    def load() -> Nvml:
        raise ImportError("No module named 'pynvml'")

    inventory = Inventory(None, load)
    assert inventory.found().reason == ("nvidia-ml-py can't be imported: No module named 'pynvml'")
    assert inventory.nvml is None


def test_the_package_has_all_that_is_asked_of_it() -> None:
    nvml = load_nvml()
    asked = [name for name in dir(Nvml) if name.startswith("nvml")]
    assert asked
    assert [name for name in asked if not callable(getattr(nvml, name, None))] == []
    assert issubclass(nvml.NVMLError, Exception)


@pytest.mark.gpu
def test_the_real_one() -> None:
    devices = Inventory().found()
    assert devices.driver
    assert all(gpu.memory_bytes > GIB and gpu.uuid for gpu in devices.gpus)
