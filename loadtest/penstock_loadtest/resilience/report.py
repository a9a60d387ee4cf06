"""What was measured, as it is kept in the JSON file beside the plots: turns, from which all figures are made."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.resilience.resources import Holdings


class Part(StrEnum):
    """The parts of the benchmark, in the order they are run; each is a field of Report."""

    GOODPUT = "goodput"
    FAIRNESS = "fairness"
    RELOADS = "reloads"
    LOOPS = "loops"


class ClientCheck(msgspec.Struct, frozen=True):
    """Whether the client kept its schedule, so that it is not what was measured."""

    lateness_ms: float
    """99 of 100 requests were sent no later than this after they were due."""
    cores: float
    """CPU of the busiest client process; it can use one core."""


class LoadTurn(msgspec.Struct, frozen=True):
    """One server under one offered load, from an idle start."""

    server: str
    round: int
    load: float
    """Multiple of the model's capacity."""
    offered: float
    """Requests a second."""
    good: float
    """Answers in time a second."""
    unanswered: int
    client: ClientCheck
    memory: tuple[tuple[float, int], ...]
    """Seconds since the load began, resident bytes of all the server's processes."""


class FairTurn(msgspec.Struct, frozen=True):
    """One server with a polite tenant and a greedy one."""

    server: str
    round: int
    times: float
    """How much more the greedy tenant sends; 0: the polite one is alone."""
    polite_p50_ms: float
    polite_p99_ms: float
    """A request without an answer counts as the time-out."""
    polite_requests: int
    polite_unanswered: int
    greedy_answers: float
    """Per second of sending; those after its end count too."""
    client: ClientCheck


class Reload(msgspec.Struct, frozen=True):
    """One load request of a model that is served."""

    began_s: float
    ended_s: float
    error: str = ""


class ReloadTurn(msgspec.Struct, frozen=True):
    """One server whose model is reloaded under a steady load."""

    server: str
    round: int
    answered: int
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    """The three are of those that were answered."""
    points: tuple[tuple[float, float], ...]
    """Each request that was answered: seconds since the load began when it was due, milliseconds to its answer.

    Kept of the turns that are drawn, and empty in others.
    """
    failures: tuple[tuple[float, float, int], ...]
    """The same of those that have no answer, and their gRPC status."""
    processes: int
    """Model processes that answered: one more than the reloads that took effect."""
    reloads: tuple[Reload, ...]
    holdings: tuple[Holdings, ...]
    """Before the first reload and after each."""
    client: ClientCheck


class Report(msgspec.Struct, frozen=True):
    """All parts; a part that was not run is empty."""

    machine: dict[str, str | int]
    settings: dict[str, dict[str, float]]
    """Of each part that was run."""
    goodput: tuple[LoadTurn, ...] = ()
    fairness: tuple[FairTurn, ...] = ()
    reloads: tuple[ReloadTurn, ...] = ()
    loops: tuple[ReloadTurn, ...] = ()


FILE: Final = "resilience.json"


def read_report(folder: Path) -> Report:
    """What `write_report` wrote there. Raises BenchmarkError where there is none, or it can't be read."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError) as error:
        raise BenchmarkError(f"{path} can't be read: {error}") from error


def write_report(report: Report, folder: Path) -> None:
    """Write JSON with a line for each turn."""
    lines: list[str] = []
    for name in Report.__struct_fields__:
        value = getattr(report, name)
        content = _turns(value) if name in list(Part) else _json(value)
        lines.append(f'"{name}": {content}')
    (folder / FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _turns(turns: Sequence[Any]) -> str:
    return "[" + ",".join(f"\n  {_json(turn)}" for turn in turns) + "\n]"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
