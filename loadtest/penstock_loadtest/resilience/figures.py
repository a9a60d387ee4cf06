"""The figures that plots and page show, made from turns: ratios within one round, and their spread over the rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeVar

from penstock_loadtest.compare import Spread
from penstock_loadtest.resilience.report import FairTurn, LoadTurn

OVERLOAD: Final = 2.0
"""The load at which the issue's goal holds, and memory is shown."""
MIB: Final = 1 << 20

Curve = dict[float, Spread]
"""x → y over the rounds, by ascending x."""


class Turn(Protocol):
    """What all turns have."""

    @property
    def server(self) -> str:
        """Its name."""
        ...


_Turn = TypeVar("_Turn", bound=Turn)


def by_server(turns: Iterable[_Turn]) -> dict[str, list[_Turn]]:
    """Each server's turns, in the order they were run."""
    found: dict[str, list[_Turn]] = {}
    for turn in turns:
        found.setdefault(turn.server, []).append(turn)
    return found


def goodput_curve(turns: Sequence[LoadTurn]) -> Curve:
    """One server's: load → goodput over the best that it gave in the same round at any load."""
    peaks: dict[int, float] = {}
    for turn in turns:
        peaks[turn.round] = max(turn.good, peaks.get(turn.round, 0.0))
    return _curve(turns, lambda turn: turn.load, lambda turn: turn.good / (peaks[turn.round] or 1))


def fairness_curve(turns: Sequence[FairTurn]) -> Curve:
    """One server's: how much more the greedy tenant sends → the polite one's p99 over that alone in the same round."""
    alone = {turn.round: turn.polite_p99_ms for turn in turns if not turn.times}
    beside = [turn for turn in turns if turn.times and turn.round in alone]
    return _curve(
        beside, lambda turn: turn.times, lambda turn: turn.polite_p99_ms / alone[turn.round]
    )


def unanswered_parts(turns: Sequence[FairTurn]) -> Curve:
    """One server's: how much more the greedy tenant sends → the part of the polite one's requests with no answer."""
    return _curve(
        turns, lambda turn: turn.times, lambda turn: turn.polite_unanswered / turn.polite_requests
    )


def memory_growth_mib(turn: LoadTurn) -> list[tuple[float, float]]:
    """Seconds since the load began, MiB more than at its begin."""
    first = turn.memory[0][1]
    return [(at_s, (nbytes - first) / MIB) for at_s, nbytes in turn.memory]


def growth_at_overload(turns: Sequence[LoadTurn]) -> tuple[Spread, Spread] | None:
    """One server's growth of memory in MiB at OVERLOAD: of the whole turn, and of its second half.

    None if not measured.
    """
    series = [memory_growth_mib(turn) for turn in turns if turn.load == OVERLOAD]
    if not series:
        return None
    whole = tuple(one[-1][1] for one in series)
    late = tuple(one[-1][1] - one[len(one) // 2][1] for one in series)
    return Spread(whole), Spread(late)


def _curve(
    turns: Sequence[_Turn], x: Callable[[_Turn], float], y: Callable[[_Turn], float]
) -> Curve:
    points: dict[float, list[float]] = {}
    for turn in turns:
        points.setdefault(x(turn), []).append(y(turn))
    return {at: Spread(tuple(points[at])) for at in sorted(points)}
