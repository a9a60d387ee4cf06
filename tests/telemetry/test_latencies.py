"""The histogram and the summaries that `--metrics-config` asks for."""

from __future__ import annotations

import time
from math import ceil, isnan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from penstock.caching.counts import CacheCounts
from penstock.errors import ConfigError
from penstock.metrics_config import MetricsConfig
from penstock.telemetry.latencies import FIRST_RESPONSE, first_response_bounds_ms, latencies_of
from penstock.telemetry.metrics import MetricsPage
from penstock.telemetry.statistics import ModelStatistics
from penstock.telemetry.summary import PART_MS, PARTS, Summary

ALL = MetricsConfig(histogram_latencies=True, summary_latencies=True, summary_quantiles=(0.5, 0.9))


@given(st.lists(st.integers(1, 10**12), min_size=1), st.floats(0, 1))
def test_quantiles_are_within_one_percent(values: list[int], quantile: float) -> None:
    summary = Summary()
    summary.observe_many(values, 0)
    (found,) = summary.quantiles([quantile], 0)
    true = sorted(values)[max(ceil(quantile * len(values)), 1) - 1]
    assert abs(found - true) <= 0.0101 * true
    assert (summary.count, summary.sum) == (len(values), sum(values))


def test_a_value_may_count_many_times() -> None:
    summary = Summary()
    summary.observe(100, 9, 0)
    summary.observe(10_000, 1, 0)
    found = list(summary.quantiles([0.5, 0.9, 0.91], 0))
    assert found == pytest.approx([100, 100, 10_000], rel=0.01)
    assert (summary.count, summary.sum) == (10, 10_900)


def test_what_is_older_than_a_minute_is_forgotten() -> None:
    summary = Summary()
    for part in range(PARTS):
        summary.observe(1000, 1, part * PART_MS)
    summary.observe(5000, 1, PARTS * PART_MS)
    assert next(summary.quantiles([1.0], PARTS * PART_MS)) == pytest.approx(5000, rel=0.01)
    assert next(summary.quantiles([0.5], PARTS * PART_MS)) == pytest.approx(1000, rel=0.01)
    assert next(summary.quantiles([0.0], (2 * PARTS - 1) * PART_MS)) == pytest.approx(
        5000, rel=0.01
    )
    assert isnan(next(summary.quantiles([0.5], 2 * PARTS * PART_MS)))
    assert summary.count == PARTS + 1


def test_nothing_is_made_that_is_not_asked_for() -> None:
    assert latencies_of(MetricsConfig(), {}) is None
    only = latencies_of(MetricsConfig(summary_latencies=True), {})
    assert only is not None and only.first_response_ms is None


def recorded(config: dict[str, Any]) -> ModelStatistics:
    """Of a batch of two requests."""
    statistics = ModelStatistics("m", "1", {})
    statistics.latencies = latencies_of(ALL, config)
    now_ms = __import__("time").time_ns() // 1_000_000
    statistics.record_batch(
        now_ms, 2, [1_000_000, 3_000_000], [50_000_000, 600_000_000], 10_000, 20_000, 30_000
    )
    return statistics


def page(statistics: ModelStatistics, config: MetricsConfig = ALL, accept: str = "") -> str:
    return MetricsPage(lambda: [statistics], config=config).render(accept)[0].decode()


def test_the_page_shows_both() -> None:
    text = page(recorded({}))
    families = {family.name: family for family in prometheus(text)}
    buckets = {
        sample.labels["le"]: sample.value
        for sample in families[FIRST_RESPONSE].samples
        if sample.name.endswith("_bucket")
    }
    assert buckets == {"100.0": 1, "500.0": 1, "2000.0": 2, "5000.0": 2, "+Inf": 2}
    assert families[FIRST_RESPONSE].type == "histogram"
    summary = families["nv_inference_request_summary_us"]
    assert summary.type == "summary"
    values = {(s.name, s.labels.get("quantile")): s.value for s in summary.samples}
    assert values["nv_inference_request_summary_us", "0.5"] == pytest.approx(50_000, rel=0.01)
    assert values["nv_inference_request_summary_us", "0.9"] == pytest.approx(600_000, rel=0.01)
    assert values["nv_inference_request_summary_us_count", None] == 2
    assert values["nv_inference_request_summary_us_sum", None] == 650_000
    compute = families["nv_inference_compute_infer_summary_us"].samples
    assert {s.value for s in compute if s.name.endswith("_count")} == {2}
    assert {s.value for s in compute if s.name.endswith("_sum")} == {40}


@pytest.mark.extension("response_cache")
def test_cached_answers_have_summaries_of_their_own() -> None:
    statistics = recorded({})
    assert "nv_cache_hit_summary_per_model{" not in page(statistics)
    statistics.cache = CacheCounts()
    statistics.record_hits(time.time_ns() // 10**6, [1_000], [90_000_000], [7_000_000])
    statistics.record_miss(time.time_ns() // 10**6, 3_000_000)
    families = {family.name: family for family in prometheus(page(statistics))}

    def told(name: str) -> dict[tuple[str, str | None], float]:
        return {(s.name, s.labels.get("quantile")): s.value for s in families[name].samples}

    hits = told("nv_cache_hit_summary_per_model")
    assert hits["nv_cache_hit_summary_per_model", "0.5"] == pytest.approx(7_000, rel=0.01)
    assert told("nv_cache_miss_summary_per_model")["nv_cache_miss_summary_per_model_sum", None] == (
        3_000
    )
    # they are requests like others, but nothing was computed for them
    counted = {
        part: told(f"nv_inference_{part}_summary_us")[f"nv_inference_{part}_summary_us_count", None]
        for part in ("request", "queue", "compute_infer")
    }
    assert counted == {"request": 3, "queue": 3, "compute_infer": 2}
    first = {s.name: s.value for s in families[FIRST_RESPONSE].samples}
    assert first[f"{FIRST_RESPONSE}_count"] == 3


def test_open_metrics_can_be_read_too() -> None:
    parse: Any = open_metrics
    names = {
        family.name for family in parse(page(recorded({}), accept="application/openmetrics-text"))
    }
    assert {FIRST_RESPONSE, "nv_inference_queue_summary_us"} <= names


def test_counters_of_durations_can_be_left_out() -> None:
    text = page(recorded({}), MetricsConfig(counter_latencies=False))
    assert "_duration_us" not in text
    assert "nv_inference_exec_count" in text
    assert "summary_us" not in text
    assert FIRST_RESPONSE not in text


def control(*buckets: float, family: str = FIRST_RESPONSE) -> dict[str, Any]:
    """A model's own bounds."""
    options = {"metric_identifier": {"family": family}, "histogram_options": {"buckets": buckets}}
    return {"model_metrics": {"metric_control": [options]}}


def test_a_model_may_have_its_own_bounds() -> None:
    assert first_response_bounds_ms(control(-1, 0, 2.5)) == (-1, 0, 2.5)
    latencies = recorded(control(40, 60)).latencies
    assert latencies is not None and latencies.first_response_ms is not None
    assert latencies.first_response_ms.cumulative() == [0, 1, 2]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (control(), r"buckets is \[\]; expected ascending numbers"),
        (control(2, 1), r"buckets is \[2.0, 1.0\]; expected ascending numbers"),
        (control(1, 1), "expected ascending"),
        (control(float("nan"), 1), "expected ascending"),
        (control(1, family="nv_other"), "family is 'nv_other'; expected nv_inference_first"),
    ],
)
def test_bad_bounds_are_refused_whether_they_are_needed_or_not(
    config: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        latencies_of(MetricsConfig(), config)


def test_a_decoupled_models_first_responses_are_told_one_by_one() -> None:
    statistics = recorded({"model_transaction_policy": {"decoupled": True}})
    assert statistics.latencies is not None
    histogram = statistics.latencies.first_response_ms
    assert histogram is not None and histogram.count == 0
    statistics.record_first_response(150_000_000)
    assert histogram.cumulative() == [0, 1, 1, 1, 1]
    # where nobody asked for it
    ModelStatistics("m", "1", {}).record_first_response(1)
