"""Which instance runs where, as Triton places them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_nvml import gpus
from penstock.devices.discovery import Devices
from penstock.devices.placement import MAX_INSTANCES, GpuUse, Placement, placements, threads_of
from penstock.errors import LoadFailed

NONE = Devices(reason="NVML: Driver Not Loaded")
CAN = GpuUse()
CANT = GpuUse("backend 'openvino' runs on the CPU only")


def placed(
    *groups: dict[str, Any], devices: Devices = NONE, use: GpuUse = CAN
) -> tuple[Placement, ...]:
    return placements({"instance_group": list(groups)}, devices, use)


def where(*groups: dict[str, Any], count: int = 2, use: GpuUse = CAN) -> list[str]:
    return [each.device for each in placed(*groups, devices=gpus(count), use=use)]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ({"kind": "KIND_GPU"}, ["cuda:0", "cuda:1"]),
        ({}, ["cuda:0", "cuda:1"]),
        ({"kind": "KIND_AUTO", "gpus": [1]}, ["cuda:1"]),
        ({"kind": "KIND_GPU", "count": 2, "gpus": [1, 0]}, ["cuda:1", "cuda:0"] * 2),
        ({"kind": "KIND_GPU", "gpus": [1, 1]}, ["cuda:1"]),
        ({"kind": "KIND_CPU", "count": 2}, ["cpu", "cpu"]),
        ({"kind": "KIND_MODEL"}, ["cpu"]),
    ],
)
def test_count_is_for_each_gpu(group: dict[str, Any], expected: list[str]) -> None:
    assert where(group) == expected


def test_groups_follow_each_other() -> None:
    found = placed({"kind": "KIND_CPU"}, {"kind": "KIND_GPU", "gpus": [1]}, devices=gpus(2))
    assert [(each.group, each.device) for each in found] == [(0, "cpu"), (1, "cuda:1")]


def test_what_a_worker_sees() -> None:
    cpu, gpu, model = placed(
        {"kind": "KIND_CPU"},
        {"kind": "KIND_GPU", "gpus": [1]},
        {"kind": "KIND_MODEL"},
        devices=gpus(2),
    )
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert cpu.environment == {"CUDA_VISIBLE_DEVICES": "", **order}
    assert gpu.environment == {"CUDA_VISIBLE_DEVICES": "GPU-1", **order}
    assert model.environment == {"CUDA_VISIBLE_DEVICES": "GPU-0,GPU-1", **order}
    # nobody knows what is there: the model may find it
    assert placed({"kind": "KIND_MODEL"})[0].environment == {}


def test_without_groups_the_backend_decides() -> None:
    assert [each.device for each in placements({}, gpus(2), CAN)] == ["cuda:0", "cuda:1"]
    assert [each.device for each in placements({}, gpus(2), GpuUse(default=False))] == ["cpu"]
    assert [each.device for each in placements({"instance_group": []}, NONE, CAN)] == ["cpu"]


def test_who_names_no_gpu_is_content_with_the_cpu() -> None:
    assert [each.fallback for each in placed({"kind": "KIND_AUTO", "count": 2})] == ["", ""]
    assert [each.fallback for each in placed({}, devices=gpus(1), use=CANT)] == [""]


@pytest.mark.parametrize(
    ("devices", "use", "asked", "reason"),
    [
        (NONE, CAN, [0], "the server has no GPU: NVML: Driver Not Loaded"),
        (gpus(2), CAN, [0, 5], "GPU 5 is not there; the server has 0 (Model 0), 1 (Model 1)"),
        (gpus(1), CAN, [4, 5], "GPUs 4, 5 are not there; the server has 0 (Model 0)"),
        (gpus(1), CANT, [0], "backend 'openvino' runs on the CPU only"),
    ],
)
def test_a_gpu_that_is_not_there(
    devices: Devices, use: GpuUse, asked: list[int], reason: str
) -> None:
    found = placed({"kind": "KIND_AUTO", "gpus": asked, "count": 2}, devices=devices, use=use)
    assert [(each.device, each.fallback) for each in found] == [
        ("cpu", f"runs on the CPU: {reason}")
    ] * 2
    with pytest.raises(LoadFailed) as caught:
        placed({"kind": "KIND_CPU"}, {"kind": "KIND_GPU", "gpus": asked}, devices=devices, use=use)
    assert str(caught.value) == f"instance_group[1] has kind KIND_GPU, but {reason}"


def test_a_gpu_without_a_number_that_is_not_there() -> None:
    with pytest.raises(LoadFailed, match="the server has no GPU"):
        placed({"kind": "KIND_GPU"})


def test_too_many_on_all_gpus_together() -> None:
    group = {"kind": "KIND_GPU", "count": MAX_INSTANCES // 2}
    assert len(where(group, count=2)) == MAX_INSTANCES
    with pytest.raises(LoadFailed, match=r"instance_group\[0\] makes 1536 instances .* on 3 GPUs"):
        where(group, count=3)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "kind": st.sampled_from(["KIND_AUTO", "KIND_CPU", "KIND_GPU", "KIND_MODEL"]),
                "count": st.integers(0, 4),
            }
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 3),
)
def test_every_group_has_its_instances(groups: list[dict[str, Any]], count: int) -> None:
    found = placed(*groups, devices=gpus(count))
    for number, group in enumerate(groups):
        mine = [each for each in found if each.group == number]
        devices = 1 if group["kind"] in ("KIND_CPU", "KIND_MODEL") else count
        assert len(mine) == max(1, group["count"]) * devices
        assert len({each.device for each in mine}) == devices
    assert [each.group for each in found] == sorted(each.group for each in found)
    assert not any(each.fallback for each in found)


def test_instances_on_the_cpu_divide_its_threads() -> None:
    found = placed(
        {"kind": "KIND_CPU", "count": 2}, {"kind": "KIND_GPU", "count": 2}, devices=gpus(1)
    )
    assert [threads_of(found, index, 8) for index in range(4)] == [4, 4, 2, 2]
    assert threads_of(found, 0, 1) == 1
    # one that the configuration does not ask for any more
    assert threads_of(found, 7, 8) == 2
