"""Who kills is found, whoever else was in the batch, and with as few dead workers as the costs allow."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.scheduling.culprits import judge

QUICK_US, SLOW_US, RESTART_US = 1_000, 10_000_000, 1_000_000


@dataclass(eq=False)
class Suspect:
    """A request that kills, or doesn't."""

    kills: bool = False
    shape_key: Hashable = "a"
    attempts: int = 0


def groups(batch: list[Suspect]) -> list[list[Suspect]]:
    """Those who may run together."""
    found: dict[Hashable, list[Suspect]] = {}
    for request in batch:
        found.setdefault(request.shape_key, []).append(request)
    return list(found.values())


def run(batch: list[Suspect], single_us: float, *, hung: bool = False) -> tuple[list[Suspect], int]:
    """Run and judge until nobody is left; the guilty, and how many workers died."""
    waiting, guilty, deaths = [batch], [], 0
    while waiting:
        part = waiting.pop(0)
        if not any(request.kills for request in part):
            continue
        deaths += 1
        verdict = judge(part, hung=hung, single_us=single_us, restart_us=RESTART_US)
        guilty += verdict.guilty
        waiting += groups(list(verdict.repeated))
    return guilty, deaths


def test_the_first_time_the_batch_runs_again_as_it_was_and_without_strangers() -> None:
    batch = [Suspect(), Suspect(), Suspect()]
    verdict = judge(batch, hung=False, single_us=QUICK_US, restart_us=RESTART_US)
    assert (verdict.repeated, verdict.guilty) == (batch, [])
    assert groups(batch) == [batch]
    assert batch[0].shape_key != "a"


def test_a_request_alone_is_guilty_the_third_time() -> None:
    request = Suspect()
    for _ in range(2):
        assert judge([request], hung=False, single_us=0, restart_us=0).repeated == [request]
    assert judge([request], hung=False, single_us=0, restart_us=0).guilty == [request]


def test_who_hangs_alone_gets_no_second_chance() -> None:
    request = Suspect()
    assert judge([request], hung=True, single_us=0, restart_us=0).guilty == [request]


@pytest.mark.parametrize(
    ("single_us", "hung", "deaths"),
    [
        # as it was, twice; then alone
        (QUICK_US, False, 3),
        # as it was, twice; then halves of 16, 8, 4, 2, 1
        (SLOW_US, False, 7),
        (QUICK_US, True, 2),
    ],
)
def test_one_by_one_or_in_halves(single_us: float, hung: bool, deaths: int) -> None:
    batch = [Suspect(kills=number == 19) for number in range(32)]
    assert run(batch, single_us, hung=hung) == ([batch[19]], deaths)


@given(
    kills=st.lists(st.booleans(), min_size=1, max_size=40),
    single_us=st.sampled_from([QUICK_US, 100_000, SLOW_US]),
    hung=st.booleans(),
)
def test_exactly_those_who_kill_are_guilty(kills: list[bool], single_us: float, hung: bool) -> None:
    batch = [Suspect(kill) for kill in kills]
    guilty, _ = run(batch, single_us, hung=hung)
    assert sorted(map(id, guilty)) == sorted(id(request) for request in batch if request.kills)
