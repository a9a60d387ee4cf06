"""The same training twice: by this package's loop, and as one writes it down with PyTorch's DDP alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from penstock.config_section import Section
from penstock_training.buffers import RunningBuffers
from penstock_training.checkpoint import Checkpoints
from penstock_training.checkpoint_folder import CheckpointFolder
from penstock_training.config import OptimizerSettings, TrainConfig
from penstock_training.learner import Learner
from penstock_training.loop import Loop
from penstock_training.optimizer import make_optimizer
from penstock_training.parallel import share
from penstock_training.plan import make_plan
from penstock_training.precision import Precision
from penstock_training.progress import Lines
from penstock_training.recipe import Batch, Lake, Recipe, Splits
from penstock_training.reporter import Silent, Speaker
from penstock_training.state import State
from penstock_training.tracking import NoTracker, RunFacts
from penstock_training.world import World

BATCH_OF_ONE_PROCESS = 64


class Images:
    """Rows of tensors."""

    def __init__(self, tensors: Batch) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors["label"])

    def fetch(self, rows: Tensor) -> Batch:
        """Copies of them."""
        return {name: tensor[rows] for name, tensor in self.tensors.items()}


class Rows(Section):
    """`[recipe.options]`"""

    rows: int = 128


class DigitsLike(Recipe):
    """A network as small as the digits example's, on noise: what a loop costs shows most where steps are short."""

    Options = Rows
    options: Rows
    inputs = ("image",)
    outputs = ("scores",)

    def model(self) -> nn.Module:
        return nn.Sequential(
            *_conv(1, 32),
            *_conv(32, 32),
            nn.MaxPool2d(2),
            *_conv(32, 64),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 2 * 2, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )

    def datasets(self, lake: Lake) -> Splits:
        rows, few = images(self.options.rows), images(1)
        return Splits(rows, few, few)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(outputs, batch["label"], reduction="none")

    def example_input(self) -> Batch:
        return {"image": torch.zeros(1, 1, 8, 8)}


def _conv(channels_in: int, channels_out: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(channels_out), nn.ReLU()]


def images(rows: int) -> Images:
    """The same in every process."""
    chance = torch.Generator().manual_seed(3)
    pixels = torch.rand(rows, 1, 8, 8, generator=chance)
    return Images({"image": pixels, "label": torch.randint(10, (rows,), generator=chance)})


@dataclass(frozen=True)
class Clocks:
    """Both at once."""

    wall_s: float
    cpu_s: float
    """Of this process: says what a loop costs on a machine that does other things too."""

    @classmethod
    def now(cls) -> Clocks:
        """As they stand."""
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Clocks) -> Clocks:
        return Clocks(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


class Timed(Speaker):
    """Rank 0's reporter, which says as much as always, and notes when the last step was done."""

    done = Clocks(0, 0)

    def evaluating(self, step: int) -> None:
        self.done = Clocks.now()
        super().evaluating(step)


class TimedSilent(Silent):
    """The others'."""

    done = Clocks(0, 0)

    def evaluating(self, step: int) -> None:
        self.done = Clocks.now()


@dataclass(frozen=True)
class Contest:
    """What both loops are to do: one epoch of `steps` steps."""

    world: World
    steps: int
    folder: Path

    @property
    def batch_size(self) -> int:
        return BATCH_OF_ONE_PROCESS * self.world.size

    def ours(self) -> Callable[[], Clocks]:
        """Made ready; gives what it took from the first step to the last."""
        config = TrainConfig.model_validate(
            {
                "recipe": {"name": "benchmark"},
                "run": {"folder": self.folder},
                "training": {"epochs": 1, "batch_size": self.batch_size},
            }
        )
        recipe = DigitsLike(config, self._options())
        torch.manual_seed(1)
        splits = recipe.datasets(None)  # type: ignore[arg-type]
        plan = make_plan(config.training, len(splits.train), self.world.rank, self.world.size)
        shared = share(config.training, recipe, recipe.model(), self.world)
        learner = Learner(
            config,
            self.world,
            plan,
            recipe,
            shared,
            make_optimizer(config.optimizer, shared.model),
            Precision(config.training, self.world.device),
            RunningBuffers(shared.model, plan.accumulation),
        )
        reporter = self._reporter(config, plan.total_steps)
        folder = CheckpointFolder(self.folder / "checkpoints")
        checkpoints = Checkpoints(folder, config.checkpoints, {}, self.world, reporter.saved)
        loop = Loop(learner, splits, checkpoints, reporter, lambda: False, State())

        def run() -> Clocks:
            began = Clocks.now()
            loop.run()
            return reporter.done - began

        return run

    def _reporter(self, config: TrainConfig, total_steps: int) -> Timed | TimedSilent:
        if not self.world.is_first:
            return TimedSilent()
        facts = RunFacts(
            self.folder, self.world.size, "cpu", "ddp", 0, 1, 0, {"train": 1}, total_steps, None
        )
        display = Lines((self.folder / "said.txt").open("w"))
        return Timed(config, facts, self.folder / "metrics.jsonl", NoTracker(), display)

    def plain(self) -> Callable[[], Clocks]:
        """As `ours`, without this package."""
        torch.manual_seed(1)
        recipe = DigitsLike(None, self._options())  # type: ignore[arg-type]
        model: nn.Module = recipe.model()
        if self.world.size > 1:
            model = DistributedDataParallel(model)
        # the same training: AdamW that spares biases and norms
        optimizer = make_optimizer(OptimizerSettings(), model)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        data = recipe.datasets(None).train  # type: ignore[arg-type]
        rank, size = self.world.rank, self.world.size

        def run() -> Clocks:
            began = Clocks.now()
            order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
            for step in range(self.steps):
                mine = order[step * self.batch_size :][: self.batch_size][rank::size]
                batch = data.fetch(mine)
                loss = nn.functional.cross_entropy(model(batch["image"]), batch["label"])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                if step % 10 == 9 and rank == 0:
                    loss.item()
            if size > 1:
                dist.barrier()
            return Clocks.now() - began

        return run

    def _options(self) -> Rows:
        return Rows(rows=self.steps * self.batch_size)
