"""Which traffic roll-outs are simulated with, and what is wrong with the candidate."""

from __future__ import annotations

from typing import Final

from penstock_loadtest.rollouts_traffic import Fault, Traffic

NOTHING_WRONG: Final = Fault("nothing")

JUST_ALLOWED: Final = Fault("as much worse as the defaults allow", fails=0.002, slows=1.15)

TRAFFICS: Final = (
    Traffic("even"),
    Traffic("heavy tails: no mean", pareto=1.0),
    Traffic(
        "heavy tails, load up and down by 80 %, latencies that wander",
        pareto=1.5,
        swing=0.8,
        common_sigma=0.5,
    ),
    Traffic(
        "bursts of slowness of one version's worker, 0.5 s, tenfold, every 20 s",
        pareto=1.5,
        common_sigma=0.3,
        bursts_every_s=20,
        burst_slows=10,
    ),
    Traffic(
        "bursts of errors of one version's worker, 0.5 s, half fail, every 60 s; 1 % fail always",
        fails=0.01,
        bursts_every_s=60,
        burst_slows=3,
        burst_fails=0.5,
    ),
    Traffic(
        "the same, 3 s: longer than a window",
        pareto=1.5,
        bursts_every_s=60,
        bursts_s=3,
        burst_slows=10,
        burst_fails=0.3,
    ),
    Traffic(
        "outages of both versions, 3 s, every 60 s; 2 % fail",
        swing=0.5,
        fails=0.02,
        outages_every_s=60,
    ),
    Traffic("1000 ids, sticky, clients of different kinds", pareto=1.5, fails=0.005, ids=1000),
    Traffic("50 ids, sticky, clients of different kinds", pareto=1.5, fails=0.005, ids=50),
)

FAULTS: Final = (
    Fault("all requests fail", fails=1.0),
    Fault("20 % more fail", fails=0.2),
    Fault("5 % more fail", fails=0.05),
    Fault("1 % more fail", fails=0.01),
    Fault("latency + 100 %", slows=2.0),
    Fault("latency + 30 %", slows=1.3),
    Fault("every tenth takes three times as long", slows_tail=3.0),
    Fault("NaN in all answers", non_finite=1.0),
    Fault("NaN in 1 % of the answers", non_finite=0.01),
    Fault("30 % of the answers are another class", drifts=0.3),
    Fault("15 % of the answers are another class", drifts=0.15),
)

EVEN: Final = TRAFFICS[0]
BURSTS: Final = TRAFFICS[3]
