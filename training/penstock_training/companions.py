"""What the loop works with and others provide: the lake, the tracker, and what becomes of a trained model.

Imported when they are needed: reading tables and talking to MLflow take a second each to import.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from penstock_training.config import TrainConfig
from penstock_training.data_config import TableSettings
from penstock_training.errors import DataError
from penstock_training.finished import FinishedRun
from penstock_training.recipe import Lake, Recipe, Splits
from penstock_training.tracking import NoTracker, Tracker
from penstock_training.world import World


class NoLake:
    """Of a run that names no tables."""

    def pin(self, table: TableSettings) -> TableSettings:
        raise DataError("the recipe asks for a table, and the configuration has no [data.tables]")

    def open(self, table: TableSettings) -> Any:
        return self.pin(table)

    def read(self, table: TableSettings) -> Any:
        return self.pin(table)


def lake_of(config: TrainConfig, folder: Path) -> Lake:
    """Tables; what it has to remember of them lies in that folder."""
    if not config.data.tables:
        return NoLake()
    lake: Lake = importlib.import_module("penstock_training.data.lake").Lake(folder)
    return lake


def check_gates(config: TrainConfig, recipe: Recipe, splits: Splits, source: Path) -> None:
    """Gates name metrics of the run. Raises ConfigError."""
    if config.register_as is not None:
        names = importlib.import_module("penstock_training.gate_names")
        names.check_gates(config.register_as.gates, recipe, splits, source)


def tracker_of(config: TrainConfig, world: World) -> Tracker:
    """The one that the configuration asks for; only rank 0 has any."""
    if not world.is_first or not (config.tracking.uri or config.register_as):
        return NoTracker()
    tracker: Tracker = importlib.import_module("penstock_training.mlflow_tracker").tracker_of(
        config
    )
    return tracker


def finish(run: FinishedRun) -> str:
    """Evaluates, exports, registers, as far as the configuration asks for it. Returns what came of it, for people."""
    if run.config.tracking.uri or run.config.register_as:
        return str(importlib.import_module("penstock_training.finish").finish_run(run) or "")
    return ""
