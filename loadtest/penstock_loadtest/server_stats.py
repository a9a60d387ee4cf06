"""The server's own count of what it answered, read from its statistics extension."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.servers import RunningServer

SETTLE_S = 2.0
"""A server may count a request shortly after it has answered it."""


@dataclass(frozen=True, slots=True)
class ServerStats:
    """Counts since the model was loaded."""

    success: int
    fail: int
    inferences: int
    executions: int


def read_stats(server: RunningServer, model: str) -> ServerStats:
    """Ask for `model`'s statistics over HTTP."""
    url = f"{server.http_url}/v2/models/{model}/stats"
    try:
        with urllib.request.urlopen(url, timeout=10.0) as response:
            return parse_stats(response.read())
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        raise BenchmarkError(f"{server.name} gives no statistics of {model}: {error}") from error


def parse_stats(body: bytes) -> ServerStats:
    """Read the statistics extension's JSON; the versions of a model are added up."""
    versions = json.loads(body)["model_stats"]
    return ServerStats(
        success=sum(int(v["inference_stats"]["success"]["count"]) for v in versions),
        fail=sum(int(v["inference_stats"]["fail"]["count"]) for v in versions),
        inferences=sum(int(v["inference_count"]) for v in versions),
        executions=sum(int(v["execution_count"]) for v in versions),
    )


def difference(before: ServerStats, after: ServerStats) -> ServerStats:
    """What was counted in between."""
    return ServerStats(
        after.success - before.success,
        after.fail - before.fail,
        after.inferences - before.inferences,
        after.executions - before.executions,
    )


def settled_since(
    before: ServerStats, server: RunningServer, model: str, expected: int
) -> ServerStats:
    """What was counted since `before`, once that is at least `expected` successes.

    Raises BenchmarkError where the server counts fewer, or any failure: the client saw answers that were errors.
    """
    deadline = time.monotonic() + SETTLE_S
    while True:
        counted = difference(before, read_stats(server, model))
        if counted.fail == 0 and counted.success >= expected:
            return counted
        if time.monotonic() > deadline:
            raise BenchmarkError(
                f"{server.name}: the client sent {expected} requests to {model}, the server "
                f"counted {counted.success} successes and {counted.fail} failures"
            )
        time.sleep(0.02)
