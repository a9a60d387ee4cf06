"""What one contestant did under one case's load, and which part of the machine was the limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from penstock_loadtest.cpu import CpuUse
from penstock_loadtest.load import Load
from penstock_loadtest.server_stats import ServerStats

FULL: Final = 0.9
"""A thread or a machine that is busy for this part of the time has nothing left to give."""

Limit = Literal["client", "machine", "server"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Absolute figures; only their ratios to another's of the same minutes mean anything."""

    contestant: str
    case: str
    requests: int
    per_second: float
    server_cpu_us: float
    """CPU of all the server's processes for each request."""
    median_us: float | None = None
    p99_us: float | None = None
    client_cpu_us: float = 0.0
    server_cores: float = 0.0
    """CPU-seconds a second, all processes."""
    client_cores: float = 0.0
    other_cores: float = 0.0
    """What everything else on this machine took meanwhile: noise."""
    busiest_thread: str = "-"
    busiest_thread_cores: float = 0.0
    mean_batch: float | None = None
    limit: Limit = "server"


def summarise(
    contestant: str, case: str, load: Load, cpu: CpuUse, counted: ServerStats, machine_cores: int
) -> Measurement:
    """Put together what client, kernel and server have told of one run.

    Costs are divided by what the server counted, since the client's and the server's CPU time cover all of that.
    """
    server_cores, client_cores = cpu.session_s / load.wall_s, load.client_cpu_s / load.wall_s
    other_s = max(0.0, cpu.machine_s - cpu.session_s - load.client_cpu_s)
    return Measurement(
        contestant=contestant,
        case=case,
        requests=load.requests,
        per_second=load.per_second,
        server_cpu_us=cpu.session_s / counted.success * 1e6,
        median_us=load.median_us,
        p99_us=load.p99_us,
        client_cpu_us=load.client_cpu_s / counted.success * 1e6,
        server_cores=server_cores,
        client_cores=client_cores,
        other_cores=other_s / load.wall_s,
        busiest_thread=cpu.busiest_thread,
        busiest_thread_cores=cpu.busiest_thread_s / load.wall_s,
        mean_batch=counted.inferences / counted.executions if counted.executions else None,
        limit=limit_of(
            client_cores / load.client_threads, cpu.machine_s / load.wall_s / machine_cores
        ),
    )


def limit_of(client_thread_use: float, machine_use: float) -> Limit:
    """`client` where its threads were busy all the time, `machine` where all cores were, else `server`.

    `server` includes waiting: at low concurrency it is the round trip that takes the time, not CPU.
    """
    if client_thread_use >= FULL:
        return "client"
    return "machine" if machine_use >= FULL else "server"
