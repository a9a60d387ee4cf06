"""Metrics that flags add, leave out, or read less often."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from grpc_calls import infer, infer_request
from served import Served, json_request
from served_models import XY, write_model

pytestmark = pytest.mark.e2e

HISTOGRAM = "nv_inference_first_response_histogram_ms"
SUMMARIES = (
    "nv_inference_request_summary_us",
    "nv_inference_queue_summary_us",
    "nv_inference_compute_input_summary_us",
    "nv_inference_compute_infer_summary_us",
    "nv_inference_compute_output_summary_us",
)
BUCKETS = f"""
    model_metrics {{
      metric_control {{
        metric_identifier {{ family: "{HISTOGRAM}" }}
        histogram_options {{ buckets: [ 0.001, 60000 ] }}
      }}
    }}
"""


@pytest.fixture
def steady(serve: Callable[..., Served], front: str, tmp_path: Path) -> Callable[..., Served]:
    """`steady(*flags)` serves `plain`, and `own` with bounds of its own."""
    write_model(tmp_path / "plain", "steady", f"max_batch_size: 4\n{XY}")
    write_model(tmp_path / "own", "steady", f"max_batch_size: 4\n{XY}{BUCKETS}")

    def start(*flags: str) -> Served:
        return serve(tmp_path, front, *flags).wait_ready()

    return start


def test_histogram_and_summaries_where_they_are_asked_for(steady: Callable[..., Served]) -> None:
    server = steady(
        "--metrics-config=histogram_latencies=true",
        "--metrics-config",
        "summary_latencies=true",
        "--metrics-config=summary_quantiles=0.5:0.05,0.9:0.01",
    )
    for _ in range(3):
        assert server.infer("plain", json_request(1.0)).status == 200
    with grpc.insecure_channel(server.grpc) as channel:
        infer(channel, infer_request("own"))
    metrics = server.metrics()
    for bound in ("100.0", "500.0", "2000.0", "5000.0", "+Inf"):
        assert f'{HISTOGRAM}_bucket{{le="{bound}",model="plain",version="1"}}' in metrics
    assert server.metric(f"{HISTOGRAM}_count", "plain") == 3
    assert server.metric(f"{HISTOGRAM}_bucket", "own", le="0.001") == 0
    assert server.metric(f"{HISTOGRAM}_bucket", "own", le="60000.0") == 1
    for name in SUMMARIES:
        assert server.metric(f"{name}_count", "plain") == 3
        median = server.metric(name, "plain", quantile="0.5")
        assert 0 < median <= 1.02 * server.metric(name, "plain", quantile="0.9")
    total = server.metric("nv_inference_request_summary_us_sum", "plain")
    assert total == server.metric("nv_inference_request_duration_us", "plain")


def test_nothing_of_it_by_default(server: Served) -> None:
    names = {sample.split("{")[0] for sample in server.metrics()}
    assert not [name for name in names if "summary" in name or name.startswith(HISTOGRAM)]
    assert "nv_inference_request_duration_us" in names


def test_counters_of_durations_can_be_left_out(steady: Callable[..., Served]) -> None:
    server = steady("--metrics-config=counter_latencies=false", "--metrics-interval-ms=3600000")
    first = server.metrics()
    assert not [sample for sample in first if "_duration_us" in sample]
    assert 'nv_inference_exec_count{model="plain",version="1"}' in first
    # an hour old at most
    assert server.metrics()["nv_cpu_memory_used_bytes"] == first["nv_cpu_memory_used_bytes"]


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--metrics-config=loud=true", "there is no loud"),
        ("--metrics-config=summary_latencies=x", "expected true or false"),
        ("--metrics-interval-ms=0", "--metrics-interval-ms"),
    ],
)
def test_bad_flags_stop_the_start(tmp_path: Path, flag: str, text: str) -> None:
    command = [sys.executable, "-m", "penstock.cli", "serve", str(tmp_path), flag]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, text in ended.stderr) == (2, True), ended.stderr


def test_bad_bounds_are_refused_at_the_load(
    serve: Callable[..., Served], front: str, tmp_path: Path
) -> None:
    wrong = BUCKETS.replace("[ 0.001, 60000 ]", "[ 2, 1 ]")
    write_model(tmp_path / "wrong", "steady", f"max_batch_size: 4\n{XY}{wrong}")
    write_model(tmp_path / "right", "steady", f"max_batch_size: 4\n{XY}")
    server = serve(tmp_path, front).wait_ready()
    line = server.index()["wrong", "1"]
    assert line["state"] == "UNAVAILABLE"
    assert "histogram_options.buckets is [2.0, 1.0]; expected ascending numbers" in line["reason"]
    assert server.infer("right", json_request(1.0)).status == 200
