"""Measurements: CPU for each request, and which part was the limit."""

from __future__ import annotations

import pytest

from penstock_loadtest.cpu import CpuUse
from penstock_loadtest.load import Load
from penstock_loadtest.measurement import limit_of, summarise
from penstock_loadtest.server_stats import ServerStats

LOAD = Load(
    requests=1000,
    wall_s=2.0,
    per_second=510.0,
    median_us=900.0,
    p99_us=2000.0,
    client_cpu_s=0.2,
    client_threads=1,
)
CPU = CpuUse(session_s=3.0, machine_s=4.0, busiest_thread="loop", busiest_thread_s=1.5)
COUNTED = ServerStats(success=2000, fail=0, inferences=2000, executions=100)


def test_costs_are_divided_by_what_the_server_counted() -> None:
    found = summarise("a", "identity-grpc-64", LOAD, CPU, COUNTED, machine_cores=4)
    assert found.server_cpu_us == pytest.approx(1500.0)
    assert found.client_cpu_us == pytest.approx(100.0)
    assert found.mean_batch == 20
    assert found.per_second == 510.0


def test_cores_are_cpu_seconds_a_second() -> None:
    found = summarise("a", "identity-grpc-64", LOAD, CPU, COUNTED, machine_cores=4)
    assert found.server_cores == pytest.approx(1.5)
    assert found.client_cores == pytest.approx(0.1)
    assert found.other_cores == pytest.approx(0.4)
    assert found.busiest_thread == "loop"
    assert found.busiest_thread_cores == pytest.approx(0.75)
    assert found.limit == "server"


def test_rounding_of_clock_ticks_gives_no_negative_noise() -> None:
    cpu = CpuUse(session_s=3.0, machine_s=3.1, busiest_thread="-", busiest_thread_s=0.0)
    assert summarise("a", "case", LOAD, cpu, COUNTED, machine_cores=4).other_cores == 0


def test_no_mean_batch_without_executions() -> None:
    counted = ServerStats(success=10, fail=0, inferences=10, executions=0)
    assert summarise("a", "case", LOAD, CPU, counted, machine_cores=4).mean_batch is None


@pytest.mark.parametrize(
    ("client", "machine", "limit"),
    [(0.95, 0.5, "client"), (0.95, 0.99, "client"), (0.5, 0.95, "machine"), (0.5, 0.6, "server")],
)
def test_the_limit_is_what_was_full(client: float, machine: float, limit: str) -> None:
    assert limit_of(client, machine) == limit
