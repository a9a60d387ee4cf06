"""What GPUs do, over an NVML that is made up, and the metrics of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from fake_nvml import GIB, FakeGpu, FakeNvml, NVMLError
from penstock.devices.discovery import Inventory
from penstock.devices.usage import UsageReader
from penstock.telemetry.gpu_metrics import gpu_metrics
from penstock.telemetry.metrics import MetricsPage


def reader(nvml: FakeNvml, max_age_ns: int = 0) -> UsageReader:
    return UsageReader(Inventory(None, lambda: nvml), max_age_ns)


def test_units_are_tritons() -> None:
    gpu = FakeGpu("GPU-a")
    usage = reader(FakeNvml([gpu]))
    (first,) = usage.read()
    assert (first.utilization, first.memory_total_bytes) == (0.25, 40 * GIB)
    assert (first.power_usage_watts, first.power_limit_watts) == (61.5, 400)
    assert first.energy_joules == 0
    assert gpu.energy_mj is not None
    gpu.energy_mj += 2_500
    (second,) = usage.read()
    assert second.energy_joules == 2.5
    assert usage.last == (second,)
    gpu.energy_mj = 3
    assert usage.read()[0].energy_joules == 0


def test_scrapes_at_a_time_read_once() -> None:
    nvml = FakeNvml([FakeGpu("GPU-a")])
    usage = reader(nvml, max_age_ns=10**15)
    assert usage.read() == usage.read()
    assert nvml.asked == ["GPU-a"]


def test_what_nvml_does_not_tell_is_left_out() -> None:
    part = FakeGpu("MIG-1", utilization=None, power_mw=None, energy_mj=None)
    (told,) = reader(FakeNvml([FakeGpu("GPU-a", parts=[part])])).read()
    assert (told.uuid, told.memory_used_bytes) == ("MIG-1", 3 * GIB)
    assert (told.utilization, told.power_usage_watts, told.energy_joules) == (None, None, None)


def test_nothing_is_read_without_gpus() -> None:
    nvml = FakeNvml()
    assert reader(nvml).read() == ()
    assert nvml.asked == []


def test_a_driver_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml([FakeGpu("GPU-a")])
    usage = reader(nvml)
    usage._inventory.found()

    def gone() -> int:
        raise NVMLError("GPU is lost")

    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", gone)
    assert usage.read() == ()


def test_the_page_has_tritons_names() -> None:
    usage = reader(FakeNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b", power_mw=None)]))
    assert usage.read()
    page = MetricsPage(tuple, others=[gpu_metrics(lambda: usage.last)], prepare=usage.read)
    text = page.render("")[0].decode()
    assert "# TYPE nv_energy_consumption counter" in text
    values = {
        (sample.name, sample.labels["gpu_uuid"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "gpu_uuid" in sample.labels
    }
    assert values["nv_gpu_utilization", "GPU-b"] == 0.25
    assert values["nv_gpu_memory_used_bytes", "GPU-a"] == 3 * GIB
    assert values["nv_gpu_power_limit", "GPU-a"] == 400
    assert ("nv_gpu_power_usage", "GPU-b") not in values
    assert 'nv_energy_consumption{gpu_uuid="GPU-a"} 0.0' in text.splitlines()
    modern = page.render("application/openmetrics-text")[0].decode()
    parse: Callable[[str], Iterable[Metric]] = openmetrics.text_string_to_metric_families
    names = {sample.name for family in parse(modern) for sample in family.samples}
    assert "nv_energy_consumption_total" in names


def test_a_page_without_gpus_has_none() -> None:
    page = MetricsPage(tuple, others=[gpu_metrics(tuple)])
    assert b"gpu" not in page.render("")[0]
