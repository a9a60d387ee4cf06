"""Fair shares: how long a polite tenant waits beside a greedy one."""

from __future__ import annotations

from typing import Final

from penstock_loadtest.resilience.answers import answered, latencies_s, quantile, unanswered
from penstock_loadtest.resilience.open_loop import Stream
from penstock_loadtest.resilience.report import FairTurn
from penstock_loadtest.resilience.sleeper import CAPACITY
from penstock_loadtest.resilience.streams import Sent, send, split, together
from penstock_loadtest.resilience.turn import check_client, turn_folder, warm_server
from penstock_loadtest.servers import RunningServer, Server

TIMES: Final = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
"""How much more the greedy tenant sends than the polite one."""
POLITE_RATE: Final = CAPACITY / 20
PATIENCE_S: Final = 2.0
"""Of both tenants."""


def fair_turn(server: Server, round_: int, times: float, seconds: float) -> FairTurn:
    """Start, let both tenants send for `seconds`, stop. Raises BenchmarkError."""
    with turn_folder() as folder, warm_server(server, folder) as started:
        polite, greedy = _tenants(started, round_, times, seconds)
        sent = send([polite, *greedy], folder)
        return _summary(started, round_, times, seconds, sent)


def _tenants(
    server: RunningServer, round_: int, times: float, seconds: float
) -> tuple[Stream, list[Stream]]:
    """The polite tenant's requests come at the same times however greedy the other is."""
    polite = Stream(server.grpc_address, POLITE_RATE, seconds, PATIENCE_S, 1 + round_, "polite")
    if not times:
        return polite, []
    rate = POLITE_RATE * times
    greedy = Stream(server.grpc_address, rate, seconds, PATIENCE_S, 1001 + round_, "greedy")
    return polite, split(greedy)


def _summary(
    server: RunningServer, round_: int, times: float, seconds: float, sent: list[Sent]
) -> FairTurn:
    polite, greedy = sent[0].answers, sent[1:]
    waits_s = latencies_s(polite, PATIENCE_S)
    return FairTurn(
        server=server.name,
        round=round_,
        times=times,
        polite_p50_ms=round(quantile(waits_s, 0.5) * 1e3, 2),
        polite_p99_ms=round(quantile(waits_s, 0.99) * 1e3, 2),
        polite_requests=len(polite),
        polite_unanswered=unanswered(polite),
        greedy_answers=round(len(answered(together(greedy))) / seconds, 1) if greedy else 0.0,
        client=check_client(sent),
    )
