"""Metrics that Python models make themselves, as Triton's do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as prometheus

from served import Served, json_request
from served_models import XY, write_model
from supervised import eventually

pytestmark = pytest.mark.e2e

COUNTER = 'metered_requests{by="a \\"name\\""}'


@pytest.fixture
def metered(serve: Callable[..., Served], front: str, tmp_path: Path) -> Served:
    """Two models with the same metrics, one of them on two workers."""
    write_model(tmp_path / "one", "metered", f"max_batch_size: 1\n{XY}")
    pair = "instance_group [ { count: 2 kind: KIND_CPU } ]"
    write_model(tmp_path / "pair", "metered", f"max_batch_size: 1\n{pair}\n{XY}")
    return serve(tmp_path, front).wait_ready()


def ask(server: Served, model: str, *values: float) -> None:
    for value in values:
        assert server.infer(model, json_request(value)).status == 200


def test_they_are_there_before_the_first_request(metered: Served) -> None:
    metrics = metered.metrics()
    assert (metrics[COUNTER], metrics["metered_last"]) == (0, 0)
    assert metrics['metered:x_bucket{le="+Inf"}'] == 0


def test_they_are_right_as_soon_as_the_client_has_its_answer(metered: Served) -> None:
    ask(metered, "one", 0.25, 3, 7)
    page = metered.request("GET", "/metrics", port=metered.settings.metrics_port).body.decode()
    families = {family.name: family for family in prometheus(page)}
    kinds = {
        name: families[name].type for name in ("metered_requests", "metered_last", "metered:x")
    }
    assert list(kinds.values()) == ["counter", "gauge", "histogram"]
    assert families["metered_requests"].documentation == "Requests of any model"
    metrics = metered.metrics()
    assert (metrics[COUNTER], metrics["metered_last"]) == (3, 7)
    buckets = [metrics[f'metered:x_bucket{{le="{le}"}}'] for le in ("0.5", "5.0", "+Inf")]
    assert buckets == [1, 2, 3]
    assert (metrics["metered:x_count"], metrics["metered:x_sum"]) == (3, 10.25)


def test_workers_and_models_with_the_same_names_add_up(metered: Served) -> None:
    ask(metered, "one", 1, 1)
    ask(metered, "pair", *[1] * 6)
    assert metered.metrics()[COUNTER] == 8


def test_a_worker_that_dies_takes_no_counts_with_it(metered: Served) -> None:
    ask(metered, "one", 1, 1)
    (pid,) = metered.workers("one")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: metered.workers("one") not in ([], [pid]), "no new worker")
    eventually(lambda: metered.get("/v2/models/one/ready").status == 200, "not ready")
    ask(metered, "one", 1)
    assert metered.metrics()[COUNTER] == 3


def test_a_gateway_that_is_started_anew_is_told_all_of_it(metered: Served) -> None:
    ask(metered, "one", 1, 2)
    old = metered.gateway
    os.kill(old, signal.SIGKILL)
    eventually(lambda: "serves again" in metered.log, "no new gateway")
    metrics = metered.metrics()
    assert (metrics[COUNTER], metrics["metered_last"]) == (2, 2)
    assert metrics["metered:x_sum"] == 3
