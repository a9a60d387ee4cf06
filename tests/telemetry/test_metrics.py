"""The metrics page as Prometheus's own parsers read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

import penstock
from penstock.caching.counts import CacheCounts
from penstock.scheduling.refusals import Refusal
from penstock.scheduling.sequence_backlog import Ending, SequenceCounts
from penstock.scheduling.slo import Decision
from penstock.telemetry.host import HostReader
from penstock.telemetry.metrics import MetricsPage
from penstock.telemetry.statistics import FailureReason, ModelStatistics

OPENMETRICS_ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=dots;q=0.6,"
    "text/plain;version=1.0.0;q=0.5,*/*;q=0.1"
)

TRITON_COUNTERS = {
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
}
TRITON_GAUGES = {
    "nv_inference_pending_request_count",
    "nv_model_load_duration_secs",
    "nv_cpu_utilization",
    "nv_cpu_memory_total_bytes",
    "nv_cpu_memory_used_bytes",
}
MODEL = {"model": "digits", "version": "2"}


@pytest.fixture
def statistics() -> ModelStatistics:
    statistics = ModelStatistics("digits", "2", {})
    statistics.record_batch(
        1,
        rows=3,
        queue_ns=[200_000, 2_000_000],
        request_ns=[1_000_000, 4_000_000],
        input_ns=100_000,
        infer_ns=700_000,
        output_ns=200_000,
    )
    for _ in range(4):
        statistics.record_failure(FailureReason.CANCELED, 10)
    statistics.ready = True
    statistics.pending = 7
    statistics.queued_bytes = 640
    statistics.worker_restarts = 1
    statistics.load_duration_s = 1.5
    return statistics


@pytest.fixture
def page(statistics: ModelStatistics) -> MetricsPage:
    return MetricsPage(lambda: [statistics])


def text(page: MetricsPage) -> str:
    return page.render("")[0].decode()


def samples(families: Iterable[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(page: MetricsPage, name: str, **labels: str) -> float:
    """Of one sample; the parser gives counters the suffix `_total` where the page has none."""
    found = samples(text_string_to_metric_families(text(page)))
    return found[name, frozenset(labels.items())]


def test_names_are_exactly_tritons(page: MetricsPage) -> None:
    lines = text(page).splitlines()
    names = {line.split("{")[0].split(" ")[0] for line in lines if line.startswith("nv_")}
    types = {tuple(line.split(" ")[2:]) for line in lines if line.startswith("# TYPE nv_")}
    helps = {line.split(" ")[2] for line in lines if line.startswith("# HELP nv_")}

    assert names == helps == TRITON_COUNTERS | TRITON_GAUGES
    assert types == {(name, "counter") for name in TRITON_COUNTERS} | {
        (name, "gauge") for name in TRITON_GAUGES
    }


def test_text_is_tritons_word_for_word(page: MetricsPage) -> None:
    assert (
        "# HELP nv_inference_request_success "
        "Number of successful inference requests, all batch sizes\n"
        "# TYPE nv_inference_request_success counter\n"
        'nv_inference_request_success{model="digits",version="2"} 2.0\n'
    ) in text(page)


def test_values_of_the_counters(page: MetricsPage) -> None:
    assert value(page, "nv_inference_request_success_total", **MODEL) == 2
    assert value(page, "nv_inference_count_total", **MODEL) == 3
    assert value(page, "nv_inference_exec_count_total", **MODEL) == 1
    assert value(page, "nv_inference_request_duration_us_total", **MODEL) == 5_000
    assert value(page, "nv_inference_queue_duration_us_total", **MODEL) == 2_200
    assert value(page, "nv_inference_compute_input_duration_us_total", **MODEL) == 200
    assert value(page, "nv_inference_compute_infer_duration_us_total", **MODEL) == 1_400
    assert value(page, "nv_inference_compute_output_duration_us_total", **MODEL) == 400
    assert value(page, "penstock_worker_restarts_total", **MODEL) == 1


def test_each_reason_of_failure_has_its_counter(page: MetricsPage) -> None:
    failures = {
        reason: value(page, "nv_inference_request_failure_total", reason=reason, **MODEL)
        for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    }
    assert failures == {"REJECTED": 0, "CANCELED": 4, "BACKEND": 0, "OTHER": 0}


def test_each_reason_of_refusal_has_its_counter(
    page: MetricsPage, statistics: ModelStatistics
) -> None:
    statistics.refused = {**dict.fromkeys(Refusal, 0), Refusal.TOO_LATE: 5}
    refused = {
        reason.value: value(page, "penstock_refused_requests_total", reason=reason.value, **MODEL)
        for reason in Refusal
    }
    assert refused == {
        "queue_full": 0,
        "queue_time": 0,
        "too_late": 5,
        "expired": 0,
        "queue_timeout": 0,
        "quarantined": 0,
    }


def test_what_the_slo_controller_decided(page: MetricsPage, statistics: ModelStatistics) -> None:
    assert "penstock_slo_headroom{" not in page.render("")[0].decode()
    statistics.slo = Decision(
        at_us=1, rows_cap=16, delay_us=2_500, measured_p99_us=40_000, headroom=0.85, reason=""
    )
    assert value(page, "penstock_slo_measured_p99_seconds", **MODEL) == 0.04
    assert value(page, "penstock_slo_batch_rows", **MODEL) == 16
    assert value(page, "penstock_slo_delay_seconds", **MODEL) == 0.0025
    assert value(page, "penstock_slo_headroom", **MODEL) == 0.85


def test_sequences_of_stateful_models(page: MetricsPage, statistics: ModelStatistics) -> None:
    assert "penstock_sequences{" not in text(page)
    statistics.sequences = SequenceCounts(active=3, backlog=2)
    statistics.sequences.ended[Ending.IDLE] = 7
    assert value(page, "penstock_sequences", state="active", **MODEL) == 3
    assert value(page, "penstock_sequences", state="backlog", **MODEL) == 2
    ended = {
        reason.value: value(page, "penstock_ended_sequences_total", reason=reason.value, **MODEL)
        for reason in Ending
    }
    assert ended == {"completed": 0, "idle": 7, "lost": 0}


def test_values_of_the_gauges(page: MetricsPage) -> None:
    assert value(page, "nv_inference_pending_request_count", **MODEL) == 7
    assert value(page, "nv_model_load_duration_secs", **MODEL) == 1.5
    assert value(page, "penstock_model_ready", **MODEL) == 1
    assert value(page, "penstock_queued_bytes", **MODEL) == 640
    assert value(page, "penstock_build_info", version=penstock.__version__) == 1


@pytest.mark.parametrize(
    ("name", "le", "count", "total"),
    [
        ("penstock_queue_duration_seconds", "0.00025", 2, 0.0022),
        ("penstock_request_duration_seconds", "0.001", 2, 0.005),
        ("penstock_execution_duration_seconds", "0.001", 1, 0.001),
        ("penstock_batch_size", "4.0", 1, 3),
    ],
)
def test_histograms(page: MetricsPage, name: str, le: str, count: int, total: float) -> None:
    assert value(page, f"{name}_bucket", le=le, **MODEL) == 1
    assert value(page, f"{name}_bucket", le="+Inf", **MODEL) == count
    assert value(page, f"{name}_count", **MODEL) == count
    assert value(page, f"{name}_sum", **MODEL) == pytest.approx(total)


def test_openmetrics_says_the_same_under_names_with_total(page: MetricsPage) -> None:
    body, content_type = page.render(OPENMETRICS_ACCEPT)
    parse: Callable[[str], Iterable[Metric]] = openmetrics.text_string_to_metric_families
    families = {family.name: family for family in parse(body.decode())}

    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    for name in TRITON_COUNTERS:
        assert families[name].type == "counter"
        assert {sample.name for sample in families[name].samples} == {f"{name}_total"}

    plain = samples(text_string_to_metric_families(text(page)))
    for (name, labels), number in samples(families.values()).items():
        if not name.startswith("nv_cpu_"):
            assert plain[name, labels] == number


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=abc", "application/json"])
def test_all_others_get_text(page: MetricsPage, accept: str) -> None:
    assert page.render(accept)[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_tags_become_labels_with_an_underscore() -> None:
    statistics = ModelStatistics("digits", "2", {"team-name": 'a "b"\n', "model": "no"})
    page = MetricsPage(lambda: [statistics])

    labels = {"_team_name": 'a "b"\n', "_model": "no", **MODEL}
    assert value(page, "nv_inference_count_total", **labels) == 0


def test_models_are_asked_for_at_each_scrape() -> None:
    models: list[ModelStatistics] = []
    page = MetricsPage(lambda: models)
    assert "digits" not in text(page)
    models.append(ModelStatistics("digits", "1", {}))
    models.append(ModelStatistics("digits", "2", {}))
    assert value(page, "penstock_model_ready", model="digits", version="1") == 0
    assert value(page, "penstock_model_ready", model="digits", version="2") == 0


def test_without_proc_the_machine_is_left_out(tmp_path: Path) -> None:
    page = MetricsPage(list, HostReader(tmp_path))
    assert "nv_cpu" not in text(page)


@pytest.mark.extension("response_cache")
def test_what_the_cache_did(page: MetricsPage, statistics: ModelStatistics) -> None:
    assert not cache_samples(page)
    statistics.cache = CacheCounts(coalesced=2, evictions=3, too_large=4, entries=5, nbytes=6)
    statistics.record_hits(1, [10, 20], [1000, 3000], [2000, 5500])
    statistics.record_miss(1, 9_999)
    assert cache_samples(page) == {
        "nv_cache_num_hits_per_model": 2,
        "nv_cache_hit_duration_per_model": 7,
        "nv_cache_num_misses_per_model": 1,
        "nv_cache_miss_duration_per_model": 9,
        "penstock_cache_coalesced_total": 2,
        "penstock_cache_evictions_total": 3,
        "penstock_cache_too_large_total": 4,
        "penstock_cache_entries": 5,
        "penstock_cache_bytes": 6,
    }


def cache_samples(page: MetricsPage) -> dict[str, float]:
    """Name → value of all that is said of the cache."""
    lines = [line for line in text(page).splitlines() if re.match(r"[a-z]+_cache_", line)]
    return {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines}
