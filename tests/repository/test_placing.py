"""Instances of models on GPUs that a test makes up, from the configuration's file to the worker's environment."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from fake_nvml import gpus
from penstock.backends.gpu_support import GpuBackend, gpu_problem
from penstock.devices.discovery import Devices
from penstock.devices.placement import Placement
from penstock.model_config import ConfigDict
from penstock.repository import instance_starter
from penstock.repository.placing import placed
from penstock.repository.turns import needs_of
from repository_bench import Make, crash, write

pytestmark = pytest.mark.extension("gpu_placement")

ON_GPUS = "instance_group [ { kind: KIND_GPU }, { kind: KIND_CPU count: 2 } ]"
NONE = Devices(reason="no driver")


async def started(make: Make, devices: Devices) -> Any:
    bench = make(devices=devices)
    await bench.repository.start()
    return bench


async def test_each_worker_sees_its_own_gpu(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1, config=ON_GPUS)
    bench = await started(make, gpus(2))
    told = {load.instance_name: load.device for load in bench.link.loads}
    assert told == {"m_0": "cuda:0", "m_1": "cuda:1", "m_2": "cpu", "m_3": "cpu"}
    seen = dict(zip(bench.link.started, bench.link.environments, strict=True))
    assert [seen[f"m/1#{n}"]["CUDA_VISIBLE_DEVICES"] for n in range(4)] == [
        "GPU-0",
        "GPU-1",
        "",
        "",
    ]
    # four threads are divided by the two on the CPU; one on a GPU has a fourth
    assert [seen[f"m/1#{n}"]["OMP_NUM_THREADS"] for n in range(4)] == ["1", "1", "2", "2"]
    (line,) = bench.repository.index()
    assert (line.instances, line.devices) == (4, "cpu, cuda:0, cuda:1")
    instances = bench.repository.get("m").pool.explain()["instances"]
    assert sorted(each["device"] for each in instances) == ["cpu", "cpu", "cuda:0", "cuda:1"]


async def test_a_gpu_that_is_not_there_fails_the_model(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1, config=ON_GPUS)
    bench = await started(make, NONE)
    reason = "instance_group[0] has kind KIND_GPU, but the server has no GPU: no driver"
    assert bench.lines == [("m", "1", "UNAVAILABLE", reason)]
    assert bench.link.started == []


async def test_one_that_may_run_on_the_cpu_does_and_says_so(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a" / "m", 1, config="instance_group { gpus: [ 1 ] count: 2 }")
    bench = await started(make, gpus(1))
    reason = "runs on the CPU: GPU 1 is not there; the server has 0 (Model 0)"
    assert bench.lines == [("m", "1", "READY", reason)]
    model = bench.repository.get("m")
    assert model.statistics.fallbacks() == {"device": reason}
    assert model.described["parameters"] == {"penstock_fallback": {"string_value": reason}}
    assert model.config_dict["parameters"] == {}
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        f"model 'm' version 1 does not run as asked for: {reason}"
    ]


async def test_what_a_backend_says_is_told_too(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1, config="instance_group { gpus: [ 0 ] }")
    bench = make(devices=gpus(1))
    bench.link.fallback = "ONNX in the place of TensorRT"
    await bench.repository.start()
    model = bench.repository.get("m")
    assert model.statistics.fallbacks() == {"backend": "ONNX in the place of TensorRT"}
    assert model.properties == {"fallback": "ONNX in the place of TensorRT"}
    after = crash(make, bench, devices=gpus(1))
    await after.repository.start()
    assert after.link.loads == []
    assert after.repository.get("m").fallback == model.fallback


async def test_a_model_that_runs_as_asked_says_nothing(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1)
    model = (await started(make, gpus(1))).repository.get("m")
    assert (model.fallback, model.properties) == ("", {})
    assert model.described is model.config_dict


async def test_a_worker_of_another_gpu_is_not_taken_over(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1, config="instance_group { kind: KIND_GPU }")
    before = await started(make, gpus(1))
    same = crash(make, before, devices=gpus(1))
    await same.repository.start()
    assert same.link.loads == []
    (gpu,) = gpus(1).gpus
    other = Devices((type(gpu)(0, "GPU-other", gpu.name, 1, (8, 0)),), "")
    moved = crash(make, same, devices=other)
    await moved.repository.start()
    (seen,) = moved.link.environments
    assert (len(moved.link.loads), seen["CUDA_VISIBLE_DEVICES"]) == (1, "GPU-other")


async def test_where_instances_run_is_found_out_once_a_load(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for the configuration as it is written, and once for that which the first worker has completed."""
    asked: list[str] = []

    def counted(config: ConfigDict, version_dir: Path, devices: Devices) -> tuple[Placement, ...]:
        asked.append(config["name"])
        return placed(config, version_dir, devices)

    monkeypatch.setattr(instance_starter, "placed", counted)
    write(tmp_path / "a" / "m", 1, config="instance_group { kind: KIND_GPU count: 8 }")
    bench = await started(make, gpus(2))
    assert len(bench.link.loads) == 16
    assert asked == ["m", "m"]


@pytest.mark.parametrize(
    ("backend", "expected"),
    [("python", "cpu"), ("mlflow", "cpu"), ("tensorrt", "cuda:0")],
)
def test_what_a_model_without_groups_gets(backend: str, expected: str, tmp_path: Path) -> None:
    (placement,) = placed({"backend": backend}, tmp_path, gpus(1))
    assert (placement.device, placement.fallback) == (expected, "")


def test_a_backend_that_its_files_tell(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    config = {"instance_group": [{"kind": "KIND_GPU"}]}
    assert [each.device for each in placed(config, tmp_path, gpus(2))] == ["cuda:0", "cuda:1"]


def test_a_package_that_is_not_built_for_cuda() -> None:
    backends = {"b": GpuBackend("numpy", "version.py"), "c": GpuBackend("numpy", "cuda.so", "hint")}
    assert gpu_problem("b", backends) == ""
    assert gpu_problem("c", backends) == (
        "backend 'c' can't use a GPU here: the package numpy is not there, or not built for CUDA (hint)"
    )
    assert gpu_problem("d", backends) == "backend 'd' runs on the CPU only"
    missing = {"e": GpuBackend("no_such_package", "x.so")}
    assert "the package no_such_package is not there" in gpu_problem("e", missing)


def test_resources_are_those_of_each_instances_gpu(tmp_path: Path) -> None:
    limiter = {"resources": [{"name": "R", "count": 3}]}
    config = {
        "backend": "python",
        "instance_group": [
            {"kind": "KIND_GPU", "rate_limiter": limiter},
            {"kind": "KIND_CPU", "rate_limiter": limiter},
        ],
    }
    needs = needs_of(config, placed(config, tmp_path, gpus(2)))
    assert [[each.device for each in need.resources] for need in needs] == [[0], [1], [0]]
