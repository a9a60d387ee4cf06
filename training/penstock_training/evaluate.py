"""How good a model is on some rows: each process looks at some of the batches, and the sums are exact."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from penstock.errors import InternalError
from penstock_training.batches import to_device
from penstock_training.errors import RecipeError
from penstock_training.learner import per_sample
from penstock_training.parallel import Shared
from penstock_training.precision import Precision
from penstock_training.recipe import Batch, Dataset, Recipe
from penstock_training.world import World


@torch.no_grad()
def evaluate(
    recipe: Recipe,
    shared: Shared,
    precision: Precision,
    rows: Dataset,
    batch_size: int,
    world: World,
) -> dict[str, float]:
    """`loss` and the recipe's metrics: means over all rows, each of which counts once."""
    if len(rows) == 0:
        raise RecipeError("the recipe has no validation rows; expected at least one")
    model = shared.model.eval()
    sums: dict[str, Tensor] = {}
    seen = 0
    for numbers, counts in _turns(len(rows), batch_size, world):
        batch = to_device(rows.fetch(numbers), world.device)
        with precision.autocast():
            outputs = recipe.forward(model, batch)
            values = {"loss": recipe.loss(outputs, batch), **recipe.metrics(outputs, batch)}
        if counts:
            seen += len(numbers)
            _add(sums, values, batch)
    shared.learning.train()
    return _means(sums, seen, len(rows), world)


def _turns(rows: int, batch_size: int, world: World) -> Iterator[tuple[Tensor, bool]]:
    """(rows, do they count?) of this process. All have as many turns: those of a sharded model compute together. Who
    has nothing left looks at the first rows once more."""
    batches = torch.split(torch.arange(rows), batch_size)
    for turn in range(0, len(batches), world.size):
        mine = turn + world.rank
        yield (batches[mine], True) if mine < len(batches) else (batches[0], False)


def _add(sums: dict[str, Tensor], values: dict[str, Tensor], batch: Batch) -> None:
    for name, value in values.items():
        total = per_sample(name, value, batch).double().sum()
        sums[name] = sums[name] + total if name in sums else total


def _means(sums: dict[str, Tensor], seen: int, rows: int, world: World) -> dict[str, float]:
    # a process that had no rows knows no names
    names = next(names for names in world.all_of(list(sums)) if names)
    mine = [float(sums[name]) if name in sums else 0.0 for name in names]
    totals = torch.tensor([*mine, seen], dtype=torch.float64, device=world.device)
    *values, count = world.sum(totals).tolist()
    if count != rows:
        raise InternalError(f"{count:.0f} of {rows} rows were evaluated")
    return {name: value / rows for name, value in zip(names, values, strict=True)}
