"""What rank 0 hands to `finish.finish_run` when the training is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from penstock_training.config import TrainConfig
from penstock_training.recipe import Recipe, Splits
from penstock_training.tracking import Tracker


@dataclass(frozen=True)
class FinishedRun:
    """A trained model, and all that is known of it. It is handed over again after a kill: who takes it remembers."""

    config: TrainConfig
    """With pinned table versions."""
    folder: Path
    """The run's folder; `metrics.jsonl` in it is the curve: one JSON object a line, `step` and values by name."""
    recipe: Recipe
    splits: Splits
    model: nn.Module
    """The weights of the best checkpoint, whole, on the CPU, in evaluation mode."""
    best_step: int
    validation: Mapping[str, float]
    """What the best checkpoint's evaluation gave: `loss` and the recipe's metrics."""
    tracker: Tracker
    """Started, and not yet finished."""
