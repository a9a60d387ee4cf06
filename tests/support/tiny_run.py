"""Runs of the tiny recipe, in this process: what most tests of the loop look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock_training.config import TrainConfig
from penstock_training.launch import taken_up
from penstock_training.rank import train
from penstock_training.reporter import read_metrics
from penstock_training.run_folder import RunFolder

RECIPE = Path(__file__).parent / "tiny_recipe.py"
SOURCE = Path("tiny.toml")


def tiny(
    folder: Path, options: Mapping[str, Any] | None = None, **sections: Mapping[str, Any]
) -> TrainConfig:
    """3 epochs of 8 steps, 4 micro-batches each; a checkpoint every 3 steps, a point of the curve every step."""
    given: dict[str, dict[str, Any]] = {
        "recipe": {"name": str(RECIPE), "options": dict(options or {})},
        "run": {"folder": folder, "device": "cpu"},
        "training": {"epochs": 3, "batch_size": 32, "micro_batch_size": 8, "clip_norm": 1.0},
        "optimizer": {"learning_rate": 0.02},
        "progress": {"log_every_steps": 1},
        "evaluation": {"best": "accuracy"},
        "checkpoints": {"every_steps": 3},
    }
    for name, section in sections.items():
        given[name] = {**given.get(name, {}), **section}
    return TrainConfig.model_validate(given)


def begin(config: TrainConfig, *, resume: bool = False) -> RunFolder:
    """As the launcher does it."""
    folder = RunFolder(config.run.folder)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.begin(taken_up(config, SOURCE, folder, resume=resume))
    return folder


def run_here(
    config: TrainConfig, *, resume: bool = False, stop_wanted: Callable[[], bool] = lambda: False
) -> RunFolder:
    """The whole run, as its only process. Raises what it raises."""
    folder = begin(config, resume=resume)
    train(folder, stop_wanted)
    return folder


def curve(folder: RunFolder, name: str = "train/loss") -> dict[int, float]:
    """A metric by step. Fails where a step is noted twice."""
    points = [
        (int(point["step"]), point[name]) for point in read_metrics(folder.metrics) if name in point
    ]
    assert len(points) == len(dict(points))
    return dict(points)
