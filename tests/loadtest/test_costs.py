"""What a request costs each part of a server."""

from __future__ import annotations

import os

import pytest
from rich.console import Console

from penstock_loadtest.cases import Case
from penstock_loadtest.costs import ALL, PARTS, Turn, measure, part_of, spent, table_of
from penstock_loadtest.errors import BenchmarkError


@pytest.mark.parametrize(
    ("process", "thread", "part"),
    [
        ("envoy", "wrk:worker_1", "Envoy"),
        ("envoy", "dog:main_thread", "Envoy"),
        ("envoy", "envoy", "gateway"),
        ("python", "python", "worker"),
        ("penstock", "penstock", "penstock"),
    ],
)
def test_threads_belong_to_parts(process: str, thread: str, part: str) -> None:
    assert part_of(process, thread) == part


def test_what_a_process_spends_is_counted() -> None:
    before = spent(os.getpid())[0]
    sum(range(2_000_000))
    used = spent(os.getpid())[0] - before
    assert used[ALL] > 0


def turn(build: str, us: float) -> Turn:
    costs: dict[str, float] = dict.fromkeys((*PARTS, ALL), us)
    return Turn(build, "identity-grpc-16", costs, dict.fromkeys(PARTS, 0.5), 4.0)


def test_ratios_are_of_the_same_round() -> None:
    # the machine was slow in the second round, for both
    turns = [turn("old", 10), turn("new", 8), turn("old", 100), turn("new", 80), turn("old", 10)]
    turns.append(turn("new", 8))
    console = Console(width=160)
    with console.capture() as captured:
        console.print(table_of(turns))
    old, new = [line for line in captured.get().splitlines() if "identity" in line]
    assert "1.000" in old
    assert "0.800" in new


def test_cases_are_of_one_model() -> None:
    cases = [Case("identity", "grpc", 1), Case("image", "grpc", 1)]
    with pytest.raises(BenchmarkError, match="of one model"):
        measure([], None, cases, 1, 1, print)  # type: ignore[arg-type]
