"""Goodput against offered load: what a server still gives in time when it is asked for more than it can do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from penstock_loadtest import cpu
from penstock_loadtest.resilience.answers import goodput, unanswered
from penstock_loadtest.resilience.open_loop import Stream
from penstock_loadtest.resilience.report import LoadTurn
from penstock_loadtest.resilience.resources import resident_bytes
from penstock_loadtest.resilience.sleeper import CAPACITY
from penstock_loadtest.resilience.streams import Sending, sending, split, together
from penstock_loadtest.resilience.turn import check_client, turn_folder, warm_server
from penstock_loadtest.servers import RunningServer, Server

LOADS: Final = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0)
"""Multiples of the model's capacity."""
PATIENCE_S: Final = 0.2
SAMPLE_S: Final = 0.25


def load_turn(server: Server, round_: int, load: float, seconds: float) -> LoadTurn:
    """Start, load for `seconds`, stop. Raises BenchmarkError."""
    with turn_folder() as folder, warm_server(server, folder) as started:
        return _measure(started, round_, load, seconds, folder)


def _measure(
    server: RunningServer, round_: int, load: float, seconds: float, folder: Path
) -> LoadTurn:
    stream = Stream(server.grpc_address, load * CAPACITY, seconds, PATIENCE_S, seed=1 + round_)
    with sending(split(stream), folder) as under_way:
        memory = _watch(server, under_way)
        sent = under_way.outcomes()
    answers = together(sent)
    return LoadTurn(
        server=server.name,
        round=round_,
        load=load,
        offered=round(len(answers) / seconds, 1),
        good=round(goodput(answers, PATIENCE_S, seconds), 2),
        unanswered=unanswered(answers),
        client=check_client(sent),
        memory=tuple(memory),
    )


def _watch(server: RunningServer, under_way: Sending) -> list[tuple[float, int]]:
    """Seconds since the start and the server's resident bytes, until all clients have ended."""
    found = []
    while not under_way.is_over():
        at_s = max(0.0, time.monotonic() - under_way.start_s)
        found.append((round(at_s, 2), resident_bytes(cpu.members(server.pid))))
        time.sleep(SAMPLE_S)
    return found
