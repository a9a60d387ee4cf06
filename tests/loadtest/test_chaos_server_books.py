"""The server's counters against the clients' books, what it holds before against after, and its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from penstock_loadtest.chaos import flatness, server_books
from penstock_loadtest.chaos.books import Balance, Kind
from penstock_loadtest.chaos.family import Reading
from penstock_loadtest.chaos.models import Target
from penstock_loadtest.chaos.server_books import ServerCount, parse_counts
from penstock_loadtest.chaos.server_log import bugs_in

STEADY = Target("steady", 2, 8)
RELOADED = Target("reloaded", 1, 8, reloaded=True)

PAGE = """
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="steady",version="1"} 10.0
nv_inference_request_failure{model="steady",reason="REJECTED",version="1"} 2.0
nv_inference_request_failure{model="steady",reason="CANCELED",version="1"} 0.0
nv_inference_pending_request_count{model="steady",version="1"} 3.0
nv_inference_pending_request_count{model="steady",version="2"} 1.0
penstock_queued_bytes{model="steady",version="1"} 64.0
penstock_worker_restarts_total{model="steady",version="1"} 5.0
nv_cpu_utilization 0.3
"""


def clients(model: str, **kinds: int) -> Balance:
    return Balance({("a", model, Kind[name]): n for name, n in kinds.items()}, 0, (), 0)


def server(success: int, pending: int = 0, **failures: int) -> ServerCount:
    return ServerCount(success, dict.fromkeys(server_books.REASONS, 0) | failures, pending, 0, 0)


def compare(target: Target, balance: Balance, count: ServerCount) -> list[str]:
    return server_books.compare([target], balance, {target.name: count})


def test_the_metrics_page_is_read() -> None:
    count = parse_counts(PAGE)["steady"]
    assert (count.success, count.failures["REJECTED"], count.total) == (10, 2, 12)
    assert (count.pending, count.queued_bytes, count.restarts) == (4, 64, 5)


def test_equal_books() -> None:
    balance = clients("steady", OK=10, QUEUE_FULL=2, CRASHED=1)
    assert compare(STEADY, balance, server(10, REJECTED=2, BACKEND=1)) == []


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (server(9), "counted 9 SUCCESS, its clients saw 10"),
        (server(11), "counted 11 SUCCESS, its clients saw 10"),
        (server(10, OTHER=1), "counted 1 OTHER"),
        (server(10, pending=1), "still in its queue"),
    ],
)
def test_what_does_not_agree(count: ServerCount, text: str) -> None:
    assert any(text in line for line in compare(STEADY, clients("steady", OK=10), count))


def test_a_model_without_metrics() -> None:
    assert "do not know it" in server_books.compare([STEADY], clients("steady", OK=1), {})[0]


def test_ends_that_clients_cannot_know_give_room_and_no_more() -> None:
    balance = clients("steady", OK=10, CANCELLED=3)
    for count in (server(10), server(13), server(11, CANCELED=2), server(10, REJECTED=3)):
        assert compare(STEADY, balance, count) == []
    # each of its own would do, together they are more than there were
    lines = compare(STEADY, balance, server(13, CANCELED=2))
    assert len(lines) == 1
    assert "counted 15 requests, its clients sent 10 and 3" in lines[0]


def test_counters_that_begin_anew_have_an_upper_bound() -> None:
    balance = clients("reloaded", OK=10)
    assert compare(RELOADED, balance, server(0)) == []
    assert compare(RELOADED, balance, server(11)) != []


READING = Reading(
    processes=4,
    workers=("steady/1#0", "steady/1#1"),
    gateway_rss_kib=100_000,
    supervisor_rss_kib=50_000,
    gateway_descriptors=50,
    supervisor_descriptors=20,
    worker_descriptors=10,
    slabs=8,
    shared_memory=frozenset({"old"}),
)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"gateway_rss_kib": 200_001}, "gateway rss kib: 100000 before, 200001 after"),
        ({"gateway_descriptors": 59}, "gateway descriptors"),
        ({"supervisor_descriptors": 21}, "supervisor descriptors"),
        ({"slabs": 9}, "slabs"),
        ({"processes": 5}, "processes"),
        ({"workers": ("steady/1#0",)}, "missing are ['steady/1#1'], too many are []"),
        ({"workers": ("steady/1#0",) * 2 + ("steady/1#1",)}, "too many are ['steady/1#0']"),
        ({"shared_memory": frozenset({"old", "new"})}, "/dev/shm: new are new"),
    ],
)
def test_what_is_not_flat(change: Mapping[str, Any], text: str) -> None:
    bounds = flatness.Bounds(gateway_rss_kib=100_000)
    lines = flatness.compare([STEADY], READING, replace(READING, **change), bounds)
    assert len(lines) == 1
    assert text in lines[0]


def test_what_is_flat() -> None:
    after = replace(READING, gateway_descriptors=51, shared_memory=frozenset[str]())
    assert flatness.compare([STEADY], READING, after, flatness.Bounds()) == []


LOG = """\
2026-11-24T04:03:50.069Z ERROR   asyncio: Exception in callback <x at 0x7fe2>
Traceback (most recent call last):
asyncio.exceptions.InvalidStateError: invalid state
2026-11-24T04:03:51.000Z ERROR   penstock.repository.pool: a worker ended: killed by SIGKILL
2026-11-24T04:03:52.001Z ERROR   asyncio: Exception in callback <x at 0x7ff3>
Traceback (most recent call last):
asyncio.exceptions.InvalidStateError: invalid state
"""


def test_the_log_tells_of_bugs_once_each() -> None:
    (bug,) = bugs_in(LOG)
    assert bug.startswith("2 times: 2026-11-24T04:03:50.069Z ERROR")
    assert "InvalidStateError" in bug
    assert bugs_in(LOG.splitlines()[3]) == []
