"""Which rows each process computes, in which step: the same batches for any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor

from penstock.errors import ConfigError, PenstockError
from penstock_training.batches import read_ahead
from penstock_training.config import TrainingSettings
from penstock_training.errors import DataError
from penstock_training.plan import epoch_order, make_plan, settled_micro_batch
from penstock_training.recipe import Batch


class Numbers:
    """Rows that are their own numbers."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def fetch(self, rows: Tensor) -> Batch:
        return {"row": rows}


class Backwards(Numbers):
    def order(self, seed: int, epoch: int) -> Tensor:
        return torch.arange(len(self)).flip(0)


def settings(batch: int, micro: int = 0) -> TrainingSettings:
    return TrainingSettings(epochs=2, batch_size=batch, micro_batch_size=micro)


@given(
    some.integers(1, 4),
    some.integers(1, 4),
    some.integers(1, 4),
    some.integers(0, 30),
    some.integers(1, 5),
)
def test_processes_share_the_batch_without_changing_it(
    world: int, micro: int, micros_each: int, extra: int, step: int
) -> None:
    batch = micro * micros_each * world
    rows = batch * step + extra
    order = epoch_order(Numbers(rows), 7, 1)
    assert sorted(order.tolist()) == list(range(rows))
    seen: dict[int, Tensor] = {}
    for rank in range(world):
        plan = make_plan(settings(batch, micro), rows, rank, world)
        assert plan.accumulation == micros_each
        seen.update(plan.micro_batches(order, step - 1))
    whole = torch.cat([seen[number] for number in range(len(seen))])
    assert whole.tolist() == order[batch * (step - 1) :][:batch].tolist()
    alone = dict(make_plan(settings(batch, micro), rows, 0, 1).micro_batches(order, step - 1))
    assert {n: r.tolist() for n, r in alone.items()} == {n: r.tolist() for n, r in seen.items()}


def test_each_epoch_has_an_order_of_its_own() -> None:
    orders = [epoch_order(Numbers(50), 7, epoch).tolist() for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert epoch_order(Numbers(50), 8, 0).tolist() != orders[0]
    assert epoch_order(Backwards(3), 7, 0).tolist() == [2, 1, 0]


def test_micro_batches_get_smaller_for_more_processes() -> None:
    settled = settled_micro_batch(settings(64), 2)
    assert settled.micro_batch_size == 32
    assert make_plan(settled, 100, 0, 1).accumulation == 2
    plan = make_plan(settled, 100, 0, 4)
    assert (plan.micro_batch_size, plan.accumulation) == (16, 1)
    assert make_plan(settings(48, 24), 100, 0, 3).micro_batch_size == 8


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (
            lambda: make_plan(settings(2), 3, 0, 4),
            DataError,
            "has 3 training rows, fewer than the 4 processes",
        ),
        (
            lambda: make_plan(settings(64), 40, 0, 1),
            DataError,
            r"40 training rows, fewer than .*batch_size \(64\)",
        ),
        (
            lambda: make_plan(settings(64), 100, 0, 3),
            ConfigError,
            "among 3 processes; it can among 1, 2, 4",
        ),
    ],
)
def test_says_what_can_not_be_shared(
    make: Callable[[], Any], kind: type[PenstockError], told: str
) -> None:
    with pytest.raises(kind, match=told):
        make()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_reading_ahead_keeps_the_order_and_ends(depth: int) -> None:
    done: list[int] = []

    def note(number: int) -> int:
        done.append(number)
        return number

    def tasks() -> Iterator[Callable[[], int]]:
        for number in range(6):
            yield partial(note, number)

    assert list(read_ahead(tasks(), depth)) == list(range(6))
    done.clear()
    reading = read_ahead(tasks(), depth)
    assert next(reading) == 0
    reading.close()  # type: ignore[attr-defined]
    assert len(done) <= depth + 1
