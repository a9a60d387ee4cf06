"""Whether gates ask for what the run will count: said before the training, not hours later by a version that fails."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import torch

from penstock.errors import ConfigError
from penstock_training.config_sources import setting_in
from penstock_training.recipe import Recipe, Splits
from penstock_training.register_config import CLASSIFIER_METRICS, LOWER_IS_BETTER, GateSettings

Place = tuple[str, ...]


def check_gates(gates: GateSettings, recipe: Recipe, splits: Splits, source: Path) -> None:
    """`source`: the configuration's file. Raises ConfigError; what the recipe's `served_metrics` raises, too, which is
    called where a gate is none of a classifier's."""
    classifier = bool(recipe.class_names)
    if gates.minimum_recall and not classifier:
        place = setting_in(source, "register", "gates", "minimum_recall")
        raise ConfigError(
            f"{place}: only classifiers have a recall, and the recipe has no class_names"
        )
    known = set(CLASSIFIER_METRICS if classifier else ())
    named = list(_named(gates))
    if all(name in known for _, name in named):
        return
    known |= _served_metrics(recipe, splits)
    for where, name in named:
        if name not in known:
            raise ConfigError(_worded(setting_in(source, "register", "gates", *where), name, known))


def _named(gates: GateSettings) -> Iterator[tuple[Place, str]]:
    """Where a metric is named, and which one."""
    for name in gates.minimum:
        yield ("minimum", name), name
    for name in gates.maximum:
        yield ("maximum", name), name
    for name in gates.champion.worse_by:
        yield ("champion", "worse_by", name), name
    for name in sorted(gates.lower_is_better - LOWER_IS_BETTER):
        yield ("lower_is_better",), name


def _served_metrics(recipe: Recipe, splits: Splits) -> set[str]:
    """What the recipe counts of a served model: asked with an untrained one, and a row."""
    if type(recipe).served_metrics is Recipe.served_metrics or not len(splits.test):
        return set()
    # it takes seconds to import, and most runs do without
    from penstock_training.export import torch_outputs

    serving = recipe.serving_model(recipe.model().eval()).eval()
    batch = splits.test.fetch(torch.zeros(1, dtype=torch.int64))
    outputs = torch_outputs(recipe, serving, batch)
    tensors = {name: torch.as_tensor(output) for name, output in outputs.items()}
    return set(recipe.served_metrics(tensors, batch))


def _worded(place: str, name: str, known: set[str]) -> str:
    near = get_close_matches(name, known, n=1)
    there = ", ".join(sorted(known)) or "none: the recipe has no class_names, and no served_metrics"
    hint = f"did you mean {near[0]}?" if near else f"there are: {there}"
    return f"{place}: {name!a} is no metric of this run; {hint}"
