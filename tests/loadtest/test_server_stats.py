"""Server statistics: both spellings of numbers, several versions, and what counts as a failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from penstock_loadtest import server_stats
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.server_stats import ServerStats, difference, parse_stats, settled_since
from penstock_loadtest.servers import Ports, RunningServer

SERVER = RunningServer("any", 1, Ports(8000, 8001, 8002))
NOTHING = ServerStats(0, 0, 0, 0)


def version(success: Any, fail: Any, inferences: Any, executions: Any) -> dict[str, Any]:
    return {
        "inference_count": inferences,
        "execution_count": executions,
        "inference_stats": {"success": {"count": success}, "fail": {"count": fail}},
    }


def test_versions_are_added_up_and_numbers_may_be_strings() -> None:
    body = json.dumps({"model_stats": [version(10, 1, 20, 5), version("3", "0", "3", "3")]})
    assert parse_stats(body.encode()) == ServerStats(13, 1, 23, 8)


def test_the_difference_is_what_came_in_between() -> None:
    assert difference(ServerStats(1, 2, 3, 4), ServerStats(11, 2, 33, 5)) == ServerStats(
        10, 0, 30, 1
    )


def test_a_count_that_comes_late_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Iterator[ServerStats] = iter([ServerStats(9, 0, 9, 9), ServerStats(10, 0, 10, 9)])
    monkeypatch.setattr(server_stats, "read_stats", lambda *_: next(counts))
    assert settled_since(NOTHING, SERVER, "identity", 10).success == 10


@pytest.mark.parametrize("counted", [ServerStats(9, 0, 9, 9), ServerStats(11, 1, 11, 9)])
def test_too_few_successes_or_any_failure_is_an_error(
    monkeypatch: pytest.MonkeyPatch, counted: ServerStats
) -> None:
    monkeypatch.setattr(server_stats, "read_stats", lambda *_: counted)
    monkeypatch.setattr(server_stats, "SETTLE_S", 0.0)
    with pytest.raises(BenchmarkError, match="client sent 10 requests to identity"):
        settled_since(NOTHING, SERVER, "identity", 10)


def test_a_server_that_is_gone_is_told() -> None:
    gone = RunningServer("gone", 1, Ports(1, 1, 1))
    with pytest.raises(BenchmarkError, match="gone gives no statistics of identity"):
        server_stats.read_stats(gone, "identity")
