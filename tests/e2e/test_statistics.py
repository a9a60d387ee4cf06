"""Statistics and metrics say what happened, right after it happened, with Triton's names and meaning."""

from __future__ import annotations

import time
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from grpc_calls import infer, infer_request
from served import Served, json_request, json_tensor

pytestmark = [pytest.mark.e2e, pytest.mark.extension("statistics")]

COUNTERS = (
    "nv_inference_request_success",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
    "nv_inference_request_failure",
)
GAUGES = (
    "nv_inference_pending_request_count",
    "nv_model_load_duration_secs",
    "nv_cpu_utilization",
    "nv_cpu_memory_total_bytes",
    "nv_cpu_memory_used_bytes",
)
HISTOGRAMS = (
    "penstock_queue_duration_seconds",
    "penstock_execution_duration_seconds",
    "penstock_request_duration_seconds",
    "penstock_batch_size",
)
TWO_ROWS = np.ones((2, 3), np.float32)


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """What a model's statistics counted between two looks."""
    stats = "inference_stats"
    counted = {
        key: after[stats][key]["count"] - before[stats][key]["count"] for key in after[stats]
    }
    for key in ("inference_count", "execution_count"):
        counted[key] = after[key] - before[key]
    return counted


def test_counts_right_after_the_requests(server: Served, channel: grpc.Channel) -> None:
    before = server.statistics("chosen")
    began_ms = int(time.time() * 1000)
    for _ in range(3):
        infer(channel, infer_request("chosen", np.ones((2, 3), np.float32)))
    after = server.statistics("chosen")
    assert changes(before, after) == {
        "success": 3,
        "fail": 0,
        "queue": 3,
        "compute_input": 3,
        "compute_infer": 3,
        "compute_output": 3,
        "cache_hit": 0,
        "cache_miss": 0,
        "inference_count": 6,
        "execution_count": 3,
    }
    times = after["inference_stats"]
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert 0 < sum(times[part]["ns"] for part in parts) <= times["success"]["ns"]
    assert began_ms - 1000 <= after["last_inference"] <= time.time() * 1000 + 1000
    (batch,) = after["batch_stats"]
    assert (batch["batch_size"], batch["compute_infer"]["count"]) == (2, 3)


def test_failures_are_counted_apart(server: Served) -> None:
    before = server.statistics("puppet_pair")
    failed = server.metric("nv_inference_request_failure", "puppet_pair", reason="BACKEND")
    server.infer("puppet_pair", json_request(1.0, parameters={"error": "no"}))
    server.infer("puppet_pair", json_request(1.0, parameters={"raise": "no"}))
    counted = changes(before, server.statistics("puppet_pair"))
    assert (counted["success"], counted["fail"], counted["queue"]) == (0, 2, 0)
    after = server.metric("nv_inference_request_failure", "puppet_pair", reason="BACKEND")
    assert after == failed + 2


def test_refused_requests_cost_no_execution(server: Served) -> None:
    before = server.statistics("puppet_pair")
    assert server.infer("puppet_pair", json_request()).status in (200, 400)
    assert server.infer("puppet_pair", {"inputs": []}).status == 400
    assert changes(before, server.statistics("puppet_pair"))["fail"] == 0


def test_both_protocols_say_the_same(server: Served, rpc: Any) -> None:
    response = rpc.get_inference_statistics("every", "3", as_json=True)
    (over_rpc,) = response["model_stats"]
    (over_http,) = server.get("/v2/models/every/versions/3/stats").json["model_stats"]
    assert (over_http["name"], over_http["version"]) == ("every", "3")
    assert over_rpc["name"] == over_http["name"]
    for key, value in over_rpc["inference_stats"].items():
        assert int(value.get("count", 0)) == over_http["inference_stats"][key]["count"]


def test_every_field_of_the_protocol_is_there(server: Served, http: Any, rpc: Any) -> None:
    """As a real Triton 2.51 answered for the same traffic, but for `memory_usage`, which it leaves empty."""
    server.infer("every", json_request(1.0))
    (row,) = http.get_inference_statistics("every", "3")["model_stats"]
    parts = ("compute_input", "compute_infer", "compute_output")
    assert list(row) == [
        *("name", "version", "last_inference", "inference_count", "execution_count"),
        *("inference_stats", "response_stats", "batch_stats", "memory_usage"),
    ]
    names = ("success", "fail", "queue", *parts, "cache_hit", "cache_miss")
    assert tuple(row["inference_stats"]) == names
    assert {tuple(each) for each in row["inference_stats"].values()} == {("count", "ns")}
    assert [tuple(each) for each in row["batch_stats"]] == [("batch_size", *parts)]
    (over_rpc,) = rpc.get_inference_statistics("every", "3").model_stats
    assert [each.name for each, _ in over_rpc.ListFields()] == [
        name for name in row if name != "response_stats"
    ]
    assert [each.name for each, _ in over_rpc.inference_stats.ListFields()] == list(names)


def test_memory_usage_is_that_of_the_models_processes(server: Served) -> None:
    one, pair = server.statistics("puppet"), server.statistics("puppet_pair")
    (usage,) = one["memory_usage"]
    assert (usage["type"], usage["id"]) == ("CPU", 0)
    # at least an interpreter with NumPy, and two of them
    assert usage["byte_size"] > 10_000_000
    assert pair["memory_usage"][0]["byte_size"] > 1.5 * usage["byte_size"]


def test_failures_take_their_time_too(server: Served) -> None:
    before = server.statistics("puppet_pair")["inference_stats"]["fail"]
    server.infer("puppet_pair", json_request(1.0, parameters={"error": "no"}))
    after = server.statistics("puppet_pair")["inference_stats"]["fail"]
    assert after["count"] == before["count"] + 1
    assert 0 < after["ns"] - before["ns"] < 30_000_000_000


def test_which_models_are_asked_for(server: Served) -> None:
    def rows(path: str) -> list[tuple[str, str]]:
        stats = server.get(path).json["model_stats"]
        return [(row["name"], row["version"]) for row in stats]

    assert rows("/v2/models/every/stats") == [("every", "1"), ("every", "3")]
    ready = [key for key, line in server.index().items() if line["state"] == "READY"]
    assert sorted(rows("/v2/models/stats")) == sorted(ready)
    unknown = server.get("/v2/models/nobody/stats")
    assert (unknown.status, "nobody" in unknown.error) == (404, True)


# ── metrics ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_family_is_there(server: Served) -> None:
    page = server.request("GET", "/metrics", port=server.settings.metrics_port)
    assert page.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in prometheus(page.body.decode())}
    for names, kind in ((COUNTERS, "counter"), (GAUGES, "gauge"), (HISTOGRAMS, "histogram")):
        assert {name: families[name].type for name in names} == dict.fromkeys(names, kind)
        assert all(families[name].documentation for name in names)
    # Triton's counters have no suffix: dashboards ask for these very names
    assert not [name for name in COUNTERS if f"{name}_total".encode() in page.body]
    success = families["nv_inference_request_success"].samples
    ready = {key for key, line in server.index().items() if line["state"] == "READY"}
    assert {(s.labels["model"], s.labels["version"]) for s in success} == ready


def test_open_metrics_where_it_is_asked_for(server: Served) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    page = server.request("GET", "/metrics", headers=accept, port=server.settings.metrics_port)
    assert page.headers["content-type"].startswith("application/openmetrics-text")
    parsed: Any = open_metrics
    families = {family.name for family in parsed(page.body.decode())}
    assert {"nv_inference_count", "penstock_batch_size"} <= families


def test_values(server: Served) -> None:
    """A request of n rows is one success and n inferences."""
    names = (*COUNTERS[:8], *(f"{name}_count" for name in HISTOGRAMS), "penstock_batch_size_sum")
    before = {name: server.metric(name, "classes") for name in names}
    rows = np.ones((3, 4), np.float32)
    for _ in range(2):
        server.infer("classes", {"inputs": [json_tensor("X", rows)]})
    grown = {name: server.metric(name, "classes") - before[name] for name in names}
    assert grown["nv_inference_request_success"] == 2
    assert grown["nv_inference_count"] == 6
    assert grown["nv_inference_exec_count"] == 2
    assert all(grown[f"{name}_count"] == 2 for name in HISTOGRAMS)
    assert grown["penstock_batch_size_sum"] == 6
    durations = [grown[name] for name in COUNTERS[3:8]]
    assert durations[0] > 0
    assert sum(durations[1:]) <= durations[0]


def test_durations_are_those_of_the_statistics(server: Served) -> None:
    stats = server.statistics("classes")["inference_stats"]
    for metric, key in (
        ("nv_inference_request_duration_us", "success"),
        ("nv_inference_queue_duration_us", "queue"),
        ("nv_inference_compute_infer_duration_us", "compute_infer"),
    ):
        assert server.metric(metric, "classes") == stats[key]["ns"] // 1000


def test_tags_are_labels(server: Served) -> None:
    assert server.metric("nv_inference_count", "puppet", _team="blue") >= 0


def test_the_metrics_port_has_metrics_only(server: Served) -> None:
    port = server.settings.metrics_port
    for path in ("/v2", "/v2/models/puppet/infer", "/"):
        assert server.request("GET", path, port=port).status == 404
