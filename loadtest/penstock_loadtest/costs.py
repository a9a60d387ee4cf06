"""What a request costs each part of a server: CPU time and sleeps, of several builds of Penstock turn by turn.

On a machine that others use too throughput tells little. CPU time does, where builds share each minute of it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rich.table import Table

from penstock_loadtest import cpu
from penstock_loadtest.cases import Case
from penstock_loadtest.contestants import only_model
from penstock_loadtest.correctness import check_answer
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.h2load import H2load
from penstock_loadtest.server_stats import read_stats, settled_since
from penstock_loadtest.servers import RunningServer, Server, running

ALL: Final = "all"
PARTS: Final = ("gateway", "Envoy", "worker")
PROCESSES: Final = {"envoy": "gateway", "python": "worker"}
"""The gateway's Python runs in a thread of Envoy, which has Envoy's name."""
ENVOYS_OWN: Final = ("wrk:", "dog:")

Spent = tuple[Counter[str], Counter[str]]
"""Of each part: nanoseconds of CPU, and how often a thread slept for want of work."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One build under one case; all but the batch is for each request."""

    build: str
    case: str
    cpu_us: Mapping[str, float]
    sleeps: Mapping[str, float]
    """Each is a wake-up by another thread, and two switches of a core."""
    mean_batch: float


def measure(
    builds: Sequence[Server],
    repository: Path,
    cases: Sequence[Case],
    requests: int,
    rounds: int,
    say: Callable[[str], None],
) -> list[Turn]:
    """All builds run all the time, and get `requests` of each case one after the other. Raises BenchmarkError."""
    turns: list[Turn] = []
    with tempfile.TemporaryDirectory(prefix="pl-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        served = only_model(repository, _model_of(cases), folder / "models")
        servers = [
            stack.enter_context(running(build, served, folder / f"{build.name}.log"))
            for build in builds
        ]
        for case in cases:
            for server in servers:
                check_answer(server, case)
                # it warms up
                _turn(server, case, requests, folder)
        for _ in range(rounds):
            for case in cases:
                for server in servers:
                    turns.append(_turn(server, case, requests, folder))
                    say(_line(turns[-1]))
    return turns


def table_of(turns: Sequence[Turn]) -> Table:
    """The median of each build's turns, and of their ratios to the first build's of the same rounds."""
    table = Table(title="µs of CPU a request; times the first build's; sleeps a request")
    table.add_column("case")
    table.add_column("build")
    for column in (*PARTS, ALL, "ratio", *[f"sleeps: {part}" for part in PARTS], "batch"):
        table.add_column(column, justify="right")
    for case in dict.fromkeys(turn.case for turn in turns):
        of_case = [turn for turn in turns if turn.case == case]
        first = [turn for turn in of_case if turn.build == turns[0].build]
        for build in dict.fromkeys(turn.build for turn in of_case):
            own = [turn for turn in of_case if turn.build == build]
            table.add_row(case, build, *_figures(own, first))
    return table


def _figures(own: Sequence[Turn], first: Sequence[Turn]) -> Iterator[str]:
    for part in (*PARTS, ALL):
        yield f"{median([turn.cpu_us[part] for turn in own]):.1f}"
    pairs = zip(own, first, strict=True)
    yield f"{median([turn.cpu_us[ALL] / other.cpu_us[ALL] for turn, other in pairs]):.3f}"
    for part in PARTS:
        yield f"{median([turn.sleeps[part] for turn in own]):.2f}"
    yield f"{median([turn.mean_batch for turn in own]):.1f}"


def _line(turn: Turn) -> str:
    return f"[dim]{turn.case} {turn.build}: {turn.cpu_us[ALL]:.1f} µs of CPU a request[/]"


def _model_of(cases: Sequence[Case]) -> str:
    models = {case.model for case in cases}
    if len(models) > 1 or any(case.client != "h2load" for case in cases):
        raise BenchmarkError("the cases must be h2load's, and of one model")
    return models.pop()


def _turn(server: RunningServer, case: Case, requests: int, folder: Path) -> Turn:
    requests -= requests % case.concurrency
    client = H2load(case, server, folder)
    stats, before = read_stats(server, case.model), spent(server.pid)
    client.send(requests)
    after = spent(server.pid)
    counted = settled_since(stats, server, case.model, requests)
    cpu_ns, sleeps = after[0] - before[0], after[1] - before[1]
    return Turn(
        server.name,
        case.name,
        {part: cpu_ns[part] / requests / 1000 for part in (*PARTS, ALL)},
        {part: sleeps[part] / requests for part in PARTS},
        counted.inferences / max(counted.executions, 1),
    )


def spent(leader: int) -> Spent:
    """What the parts of the server of process `leader` have used since they began."""
    cpu_ns: Counter[str] = Counter()
    sleeps: Counter[str] = Counter()
    for pid in cpu.members(leader):
        name = cpu.name_of(pid)
        for thread in Path(f"/proc/{pid}/task").iterdir():
            part = part_of(name, (thread / "comm").read_text().strip())
            on_cpu_ns = int((thread / "schedstat").read_text().split()[0])
            cpu_ns[part] += on_cpu_ns
            cpu_ns[ALL] += on_cpu_ns
            sleeps[part] += _voluntary_switches((thread / "status").read_text())
    return cpu_ns, sleeps


def part_of(process: str, thread: str) -> str:
    """Which part of a server the thread is of; its process's name where that is none of ours."""
    if process == "envoy" and thread.startswith(ENVOYS_OWN):
        return "Envoy"
    return PROCESSES.get(process, process)


def _voluntary_switches(status: str) -> int:
    _, _, rest = status.partition("\nvoluntary_ctxt_switches:")
    return int(rest.split(None, 1)[0])
