"""A small classifier that is trained in no time, and what the training hands over at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from penstock_training.config import TrainConfig
from penstock_training.finished import FinishedRun
from penstock_training.recipe import Batch, Lake, Recipe, Splits
from penstock_training.tracking import RunFacts, Tracker

CLASSES = ("left", "right", "above")
CENTRES = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]])


@dataclass(frozen=True)
class Points:
    """Points of a plane around three centres."""

    points: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def fetch(self, rows: Tensor) -> Batch:
        return {"POINT": self.points[rows], "label": self.label[rows]}


def points(rows: int, seed: int) -> Points:
    """`rows` of them by chance."""
    chance = torch.Generator().manual_seed(seed)
    label = torch.randint(3, (rows,), generator=chance)
    return Points(CENTRES[label] + torch.randn(rows, 2, generator=chance), label)


class PlaneRecipe(Recipe):
    """Which centre is a point near?"""

    inputs: ClassVar[tuple[str, ...]] = ("POINT",)
    outputs: ClassVar[tuple[str, ...]] = ("PROBABILITY",)
    class_names: tuple[str, ...] = CLASSES

    def model(self) -> nn.Module:
        return nn.Linear(2, 3)

    def datasets(self, lake: Lake | None = None) -> Splits:
        return Splits(points(300, 1), points(100, 2), points(600, 3))

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(outputs, batch["label"], reduction="none")

    def served_metrics(self, outputs: Mapping[str, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        best = outputs["PROBABILITY"].argmax(dim=1)
        return {"left_right": (best.eq(2) == batch["label"].eq(2)).float()}

    def serving_model(self, model: nn.Module) -> nn.Module:
        return nn.Sequential(model, nn.Softmax(dim=1))

    def example_input(self) -> Batch:
        return {"POINT": torch.zeros(2, 2)}


def good_model() -> nn.Module:
    """The best there is: of a point, the scalar product with each centre, less half its square."""
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.copy_(CENTRES)
        model.bias.copy_(-(CENTRES**2).sum(dim=1) / 2)
    return model.eval()


def bad_model() -> nn.Module:
    """Takes what is left for right, and the other way round."""
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.copy_(CENTRES[[1, 0, 2]])
        model.bias.copy_(-(CENTRES**2).sum(dim=1)[[1, 0, 2]] / 2)
    return model.eval()


def experiment_of(folder: Path) -> str:
    """One for each folder: where an experiment was made decides where its artifacts lie."""
    return folder.as_posix().strip("/").replace("/", "-")


def config_of(folder: Path, uri: str, **register: Any) -> TrainConfig:
    """A run that is tracked there. `register`: of its table; none: it is not registered."""
    tracking = {
        "uri": uri,
        "experiment": experiment_of(folder),
        "system_metrics_secs": 0,
        "finish_secs": 20,
    }
    return TrainConfig.model_validate(
        {
            "recipe": {"name": f"{__file__}:PlaneRecipe"},
            "run": {"folder": folder},
            "training": {"epochs": 3, "batch_size": 30},
            "data": {"tables": {"points": {"uri": "s3://me:secret@lake/points", "version": "7"}}},
            "tracking": tracking,
            **({"register": register} if register else {}),
        }
    )


def facts_of(folder: Path, resumed_from_step: int | None = None) -> RunFacts:
    """Of a run that has just begun, unless it is said otherwise."""
    return RunFacts(
        folder=folder,
        world_size=2,
        device="cpu",
        parallel="ddp",
        micro_batch_size=15,
        accumulation=1,
        parameters=9,
        rows={"train": 300, "validation": 100, "test": 600},
        total_steps=30,
        resumed_from_step=resumed_from_step,
    )


def trained(config: TrainConfig, tracker: Tracker, model: nn.Module | None = None) -> FinishedRun:
    """What the training hands over, with curves of 30 steps."""
    folder = config.run.folder
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, 31):
            values: dict[str, float] = {"step": step, "train/loss": 1 / step}
            if step % 10 == 0:
                values |= {"validation/loss": 1.1 / step, "validation/accuracy": 1 - 1 / step}
            file.write(json.dumps(values) + "\n")
    recipe = PlaneRecipe(config, None)
    return FinishedRun(
        config=config,
        folder=folder,
        recipe=recipe,
        splits=recipe.datasets(),
        model=model or good_model(),
        best_step=30,
        validation={"loss": 0.04},
        tracker=tracker,
    )
