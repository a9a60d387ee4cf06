"""A report with two servers in all parts, of figures that are easy to reckon with."""

from __future__ import annotations

import pytest

from penstock_loadtest.resilience.report import (
    ClientCheck,
    FairTurn,
    LoadTurn,
    Reload,
    ReloadTurn,
    Report,
)
from penstock_loadtest.resilience.resources import Holdings

MIB = 1 << 20
SERVERS = {"penstock": 1.0, "triton": 0.04}


def load_turn(server: str, round_: int, load: float, good: float) -> LoadTurn:
    """Memory grows by 3 MiB."""
    memory = ((0.0, 100 * MIB), (5.0, 102 * MIB), (10.0, 103 * MIB))
    client = ClientCheck(1.5, 0.25)
    return LoadTurn(server, round_, load, 400 * load, good, 1, client, memory)


def fair_turn(server: str, times: float, p99_ms: float) -> FairTurn:
    """Half of the requests have no answer where the p99 is the time-out."""
    lost = 200 if p99_ms == 2000 else 0
    return FairTurn(server, 0, times, 20.0, p99_ms, 400, lost, 350.0, ClientCheck(2.5, 0.5))


def reload_turn(server: str, failed: int) -> ReloadTurn:
    """100 requests of 1 to 100 ms, two reloads."""
    return ReloadTurn(
        server,
        0,
        100,
        50.0,
        99.0,
        100.0,
        tuple((number / 50, float(number + 1)) for number in range(100)),
        tuple((1.0 + number, 5000.0, 14) for number in range(failed)),
        3,
        (Reload(0.5, 0.8), Reload(1.5, 1.7)),
        tuple(Holdings(50 * MIB, 200 * MIB, 40 + n, 3, 1) for n in range(3)),
        ClientCheck(0.5, 0.1),
    )


@pytest.fixture
def report() -> Report:
    """Penstock keeps its peak of 380, 400; Triton falls to 4 %. Beside the greedy one, Triton's p99 is the time-out."""
    goodput = [
        load_turn(server, round_, load, peak * part)
        for round_, peak in enumerate((380.0, 400.0))
        for server, left in SERVERS.items()
        for load, part in ((0.5, 0.5), (1.0, 1.0), (2.0, left))
    ]
    fairness = [
        *(fair_turn("penstock", times, p99) for times, p99 in ((0.0, 40), (1.0, 44), (100.0, 60))),
        *(fair_turn("triton", times, p99) for times, p99 in ((0.0, 40), (1.0, 44), (100.0, 2000))),
    ]
    reloads = (reload_turn("penstock", 0), reload_turn("triton", 2))
    return Report(
        {"cores": 4, "processor": "x86_64"},
        {"goodput": {"rounds": 2, "seconds": 10}, "loops": {"rounds": 1, "reloads": 2}},
        tuple(goodput),
        tuple(fairness),
        reloads,
        reloads,
    )
