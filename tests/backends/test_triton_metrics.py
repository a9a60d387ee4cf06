"""`pb_utils.MetricFamily` and `Metric`: what models may do with them, and what the gateway is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from penstock.backends import triton_metrics
from penstock.backends.triton_metrics import Metric, MetricFamily, MetricRegistry
from penstock.backends.triton_objects import TritonModelException
from penstock.telemetry.custom_metrics import CustomMetrics, merged

KINDS = ("counter", "gauge", "histogram")


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricRegistry]:
    """One a test."""
    made = MetricRegistry()
    monkeypatch.setattr(triton_metrics, "registry", made)
    yield made


@pytest.fixture
def families() -> dict[str, MetricFamily]:
    """One of each kind; a metric's family must live."""
    return {kind: MetricFamily(f"my_{kind}", "text", number) for number, kind in enumerate(KINDS)}


def made(families: dict[str, MetricFamily], kind: str, **labels: Any) -> Metric:
    return families[kind].Metric(labels, [1, 10] if kind == "histogram" else None)


def test_counters_and_gauges_have_values(families: dict[str, MetricFamily]) -> None:
    counter, gauge = made(families, "counter"), made(families, "gauge")
    for metric in (counter, gauge):
        assert metric.value() == 0.0
        metric.increment(2023.0)
        assert metric.value() == 2023.0
    gauge.increment(-23.5)
    assert gauge.value() == 1999.5
    gauge.set(999.9)
    assert gauge.value() == 999.9


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("counter", lambda metric: metric.increment(-1)),
        ("counter", lambda metric: metric.set(1)),
        ("counter", lambda metric: metric.observe(1)),
        ("gauge", lambda metric: metric.observe(1)),
        ("histogram", lambda metric: metric.increment(1)),
        ("histogram", lambda metric: metric.set(1)),
        ("histogram", lambda metric: metric.value()),
    ],
)
def test_what_a_kind_cannot_do(families: dict[str, MetricFamily], kind: str, call: Any) -> None:
    with pytest.raises(TritonModelException, match=f"metric 'my_{kind}': a "):
        call(made(families, kind))


@pytest.mark.parametrize("buckets", [None, [2.5, 0.1], [1, 1, 2]])
def test_a_histogram_needs_buckets_that_ascend(
    families: dict[str, MetricFamily], buckets: Any
) -> None:
    with pytest.raises(TritonModelException, match="buckets"):
        families["histogram"].Metric(labels={}, buckets=buckets)
    families["histogram"].Metric(labels={}, buckets=[])


@pytest.mark.parametrize("name", ["", "9lives", "a b", "é", None])
def test_names_are_prometheus_own(name: Any) -> None:
    with pytest.raises(TritonModelException, match=r"is no metric.s name"):
        MetricFamily(name, "", MetricFamily.COUNTER)
    with pytest.raises(TritonModelException, match=r"is no label.s name"):
        MetricFamily("fine", "", MetricFamily.COUNTER).Metric({str(name) + "-": 1})


def test_the_same_name_and_labels_are_the_same_metric(families: dict[str, MetricFamily]) -> None:
    again = MetricFamily("my_counter", "other text", MetricFamily.COUNTER)
    first, second = made(families, "counter", a="1"), again.Metric({"a": 1})
    first.increment(7.5)
    assert second.value() == 7.5
    assert made(families, "counter", a="2").value() == 0


def test_the_same_name_of_another_kind_is_refused(families: dict[str, MetricFamily]) -> None:
    with pytest.raises(TritonModelException, match="exists already and is a counter"):
        MetricFamily("my_counter", "", MetricFamily.GAUGE)


def test_a_metric_does_not_outlive_its_family() -> None:
    metric = MetricFamily("short", "", MetricFamily.COUNTER).Metric()
    for call in (lambda: metric.increment(1), metric.value):
        with pytest.raises(TritonModelException, match="'MetricFamily' has been deleted"):
            call()


def test_labels_without_end_are_stopped(
    families: dict[str, MetricFamily], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_metrics, "MAX_METRICS", 2)
    made(families, "counter", a="1")
    made(families, "gauge")
    with pytest.raises(TritonModelException, match="may have 2 metrics"):
        made(families, "counter", a="2")


def test_only_changes_are_told(registry: MetricRegistry, families: dict[str, MetricFamily]) -> None:
    counter = made(families, "counter")
    assert [change.value for change in registry.take()] == [0]
    assert registry.take() == ()
    counter.increment(2)
    counter.increment(3)
    (change,) = registry.take()
    assert (change.family, change.value, change.is_set) == ("my_counter", 5, False)


def page(custom: CustomMetrics) -> dict[str, Any]:
    """Name → value, and buckets of a histogram."""
    return {
        name: [(sample.value, sample.buckets) for sample in family.samples.values()]
        for name, family in custom.families.items()
    }


def test_what_workers_tell_adds_up(
    registry: MetricRegistry, families: dict[str, MetricFamily]
) -> None:
    custom = CustomMetrics()
    metrics = [made(families, kind) for kind in KINDS]
    for _ in range(2):
        # as if it were another worker each time, whose counts are all told once
        metrics[0].increment(2)
        metrics[1].set(5)
        metrics[2].observe(0.5)
        metrics[2].observe(50)
        custom.apply(registry.take())
    metrics[1].increment(1)
    custom.apply(registry.take())
    assert page(custom) == {
        "my_counter": [(4, [0])],
        "my_gauge": [(6, [0])],
        "my_histogram": [(101, [2, 0, 2])],
    }


def test_another_gateway_is_told_all(
    registry: MetricRegistry, families: dict[str, MetricFamily]
) -> None:
    counter, gauge, histogram = (made(families, kind) for kind in KINDS)
    counter.increment(2)
    gauge.set(5)
    histogram.observe(7)
    registry.take()
    counter.increment(1)
    registry.tell_all()
    custom = CustomMetrics()
    custom.apply(registry.take())
    assert page(custom)["my_counter"] == [(3, [0])]
    assert page(custom)["my_gauge"] == [(5, [0])]
    assert page(custom)["my_histogram"] == [(7, [0, 1, 0])]


def test_models_that_share_a_name_are_one_on_the_page(
    registry: MetricRegistry, families: dict[str, MetricFamily]
) -> None:
    made(families, "counter", a="1").increment(2)
    changes = registry.take()
    models = [CustomMetrics(), CustomMetrics()]
    for model in models:
        model.apply(changes)
    (sample,) = merged(models)["my_counter"].samples.values()
    assert sample.value == 4
