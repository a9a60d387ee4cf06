"""Reload under load: what requests notice of a model that is loaded anew, and what the server keeps of each load."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.resilience.answers import OK, answered, latencies_s, quantile
from penstock_loadtest.resilience.open_loop import Stream
from penstock_loadtest.resilience.report import Reload, ReloadTurn
from penstock_loadtest.resilience.resources import Holdings, holdings
from penstock_loadtest.resilience.sleeper import CAPACITY, NAME, touch_sleeper
from penstock_loadtest.resilience.streams import Sending, Sent, sending, together
from penstock_loadtest.resilience.turn import check_client, turn_folder, warm_server
from penstock_loadtest.servers import RunningServer, Server

LOAD: Final = 0.5
"""Multiple of the model's capacity."""
PATIENCE_S: Final = 5.0
EVERY_S: Final = 1.0
TAIL_S: Final = 1.0
"""The load goes on for this long after the last reload."""
FOR_EVER_S: Final = 1e6
LOAD_TIMEOUT_S: Final = 60.0


def reload_turn(
    server: Server, round_: int, count: int, every_s: float, keep_points: bool
) -> ReloadTurn:
    """Start, reload `count` times under load, stop. A reload begins `every_s` after the last one began, or at its end.

    Raises BenchmarkError, also where no request was answered.
    """
    with turn_folder() as folder, warm_server(server, folder) as started:
        stream = Stream(started.grpc_address, LOAD * CAPACITY, FOR_EVER_S, PATIENCE_S, 1 + round_)
        with sending([stream], folder) as under_way:
            reloads, held = _reload_often(started, under_way, folder, count, every_s)
            under_way.stop()
            sent = under_way.outcomes()
    return _summary(started, round_, sent, reloads, held, keep_points)


def _summary(
    server: RunningServer,
    round_: int,
    sent: Sequence[Sent],
    reloads: Sequence[Reload],
    held: Sequence[Holdings],
    keep_points: bool,
) -> ReloadTurn:
    answers = together(sent)
    right, lost = answered(answers), answers[answers["code"] != OK]
    if not len(right):
        raise BenchmarkError(f"{server.name} answered no request while its model was reloaded")
    waits_ms = latencies_s(right, PATIENCE_S) * 1e3
    p50_ms, p99_ms, slowest_ms = (round(quantile(waits_ms, part), 1) for part in (0.5, 0.99, 1.0))
    return ReloadTurn(
        server=server.name,
        round=round_,
        answered=len(right),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        slowest_ms=slowest_ms,
        points=tuple((_s(a["due_s"]), _ms(a)) for a in right) if keep_points else (),
        failures=tuple((_s(a["due_s"]), _ms(a), int(a["code"])) for a in lost),
        processes=len(np.unique(right["process"])),
        reloads=tuple(reloads),
        holdings=tuple(held),
        client=check_client(sent),
    )


def _reload_often(
    server: RunningServer, under_way: Sending, folder: Path, count: int, every_s: float
) -> tuple[list[Reload], list[Holdings]]:
    reloads, held, due_s = [], [holdings(server)], under_way.start_s + every_s
    for _ in range(count):
        _sleep_until(due_s)
        began_s = time.monotonic()
        touch_sleeper(folder / "repository")
        error = _load(server)
        ended_s = time.monotonic()
        start_s = under_way.start_s
        reloads.append(Reload(_s(began_s - start_s), _s(ended_s - start_s), error))
        held.append(holdings(server))
        due_s = max(began_s + every_s, ended_s)
    _sleep_until(time.monotonic() + TAIL_S)
    return reloads, held


def _load(server: RunningServer) -> str:
    """The error's text, empty where the model was loaded."""
    url = f"{server.http_url}/v2/repository/models/{NAME}/load"
    request = urllib.request.Request(url, data=b"{}", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=LOAD_TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")[:200]
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        return str(error)


def _sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.monotonic()))


def _s(seconds: float) -> float:
    return round(float(seconds), 3)


def _ms(answer: np.void) -> float:
    return round(float(answer["done_s"] - answer["due_s"]) * 1e3, 1)
