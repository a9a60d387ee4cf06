"""All knobs of a training run: one frozen tree, parsed once. `config_sources.py` reads it from TOML and `--set`.

Every field's text says what it is, in which unit, and what its default means. What a checkpoint depends on is marked by
`BOUND`: a run can only be resumed with the same values there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from penstock.config_section import Section
from penstock_training.data_config import DataSettings
from penstock_training.register_config import RegisterSettings
from penstock_training.tracking_config import TrackingSettings

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Engine = Literal["torchrun", "ray"]


class RecipeSettings(Section):
    """`[recipe]`: what is trained."""

    name: str
    """Its class: `package.module`, `package.module:Class`, or `path/to/file.py:Class`, beside the configuration."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """`[recipe.options]`: the recipe's own knobs, which it declares as `Options`."""


class RunSettings(Section):
    """`[run]`: where it runs, and where its files lie. None of it changes what comes out."""

    folder: Path
    """Folder of this run: checkpoints, metrics, how it ended. With several machines: one that all of them share."""
    engine: Engine = "torchrun"
    """torchrun: processes of this machine (or of several, by a rendezvous). ray: workers of a Ray cluster."""
    processes: Count = 0
    """How many processes train, over all machines; 0: one for each GPU, without any: one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is one."""
    threads: Count = 0
    """Compute threads of each process; 0: the cores of the machine divided among its processes."""
    max_restarts: Count = 3
    """How often all processes are started again, from the newest checkpoint, after one of them has died."""
    collective_timeout_s: AboveZero = 600
    """A process that waits so long for the others gives up: one of them hangs."""
    nodes: Positive = 1
    """Machines, each of which runs `penstock-train` with the same configuration (torchrun)."""
    rendezvous: str = ""
    """`HOST:PORT` of the first machine, where the others find it; needed with several nodes."""
    ray_address: str = ""
    """Ray cluster to train on; none: one of this machine's own, for as long as the run takes."""


class TrainingSettings(Section):
    """`[training]`: the loop."""

    epochs: Positive
    """Passes over the training rows."""
    batch_size: Positive
    """Samples of one optimizer step, over all processes: it stays the same for any number of them."""
    micro_batch_size: Count = 0
    """Samples that go through the model at once; 0: `batch_size` divided by the number of processes at the first start.
    A process with several micro-batches of a batch adds their gradients up before the step."""
    seed: Count = 0
    """The only source of chance: weights, order of the rows, dropout, augmentation."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the model computes in. Weights and optimizer stay float32. float16 scales the loss."""
    clip_norm: NotNegative = 0
    """Longest gradient, as the norm over all parameters; 0: any."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """ddp: each process has the whole model. fsdp: each has a part of it, of the gradients and of the optimizer.
    auto: fsdp when weights, gradients and optimizer would fill more than half of a GPU."""
    deterministic: bool = True
    """The same bits each time on one machine; some operations of CUDA are slower by it."""


class OptimizerSettings(Section):
    """`[optimizer]`: how gradients become steps."""

    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: AboveZero = 1e-3
    """The highest of the schedule."""
    weight_decay: NotNegative = 1e-2
    """Of all parameters with two dimensions and more: no bias, no scale of a norm."""
    beta1: Share = 0.9
    """AdamW's memory of gradients; SGD's momentum."""
    beta2: Share = 0.999
    """AdamW's memory of their squares."""


class ScheduleSettings(Section):
    """`[schedule]`: the learning rate over the run, as shares of `optimizer.learning_rate`."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    """How it falls after the warm-up."""
    warmup: NotNegative = 0.05
    """Rise from 0 in the first steps: a share of all steps if below 1, else so many steps."""
    final: Share = 0.0
    """What is left of it at the last step."""


class EvaluationSettings(Section):
    """`[evaluation]`: how good it is, on the validation rows."""

    every_epochs: Positive = 1
    """Epochs from one evaluation to the next; there is one at the end in any case."""
    batch_size: Count = 0
    """Samples that go through the model at once; 0: twice the micro-batch, 256 at least."""
    best: str = "loss"
    """The metric by which checkpoints are compared: `loss`, or one of the recipe's."""
    better: Literal["lower", "higher"] | None = None
    """Which of two values of it is better; none given: lower for loss, higher for all others."""
    patience: Count = 0
    """Early stopping: so many evaluations in a row without a better one end the training; 0: never."""
    min_delta: NotNegative = 0
    """How much better it has to be to count as better."""

    @property
    def higher_is_better(self) -> bool:
        """What `better` means for `best`."""
        return self.better == "higher" if self.better else self.best != "loss"


class CheckpointSettings(Section):
    """`[checkpoints]`: what a run goes on from."""

    every_steps: Count = 0
    """Optimizer steps from one to the next; 0: after each evaluation."""
    keep: Positive = 2
    """So many of the newest are kept, and the best one in any case."""
    asynchronous: bool = False
    """Write while the training goes on: costs a copy of weights and optimizer in memory."""


class ProgressSettings(Section):
    """`[progress]`: what is shown and noted while it runs."""

    log_every_steps: Positive = 10
    """Steps whose mean loss makes one point of the curve."""
    bars: bool | None = None
    """Bars of a terminal; none given: if there is one. Else plain lines."""


class TrainConfig(Section):
    """A whole run."""

    recipe: RecipeSettings
    """What is trained."""
    run: RunSettings
    """Where it runs."""
    training: TrainingSettings
    """The loop."""
    data: DataSettings = Field(default_factory=DataSettings)
    """What it is trained on."""
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    """How gradients become steps."""
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings)
    """The learning rate over the run."""
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    """How good it is."""
    checkpoints: CheckpointSettings = Field(default_factory=CheckpointSettings)
    """What a run goes on from."""
    progress: ProgressSettings = Field(default_factory=ProgressSettings)
    """What is shown while it runs."""
    tracking: TrackingSettings = Field(default_factory=TrackingSettings)
    """MLflow."""
    register_as: RegisterSettings | None = Field(default=None, alias="register")
    """`[register]`: what becomes of the trained model; without it, it stays in the run's folder."""

    @model_validator(mode="after")
    def _check_batches(self) -> TrainConfig:
        batch, micro = self.training.batch_size, self.training.micro_batch_size
        if micro and batch % micro:
            raise ValueError(
                f"training.batch_size ({batch}) has to be a multiple of training.micro_batch_size ({micro})"
            )
        if self.run.nodes > 1 and not self.run.rendezvous:
            raise ValueError("run.rendezvous is needed with several run.nodes")
        return self

    def digest(self) -> str:
        """`sha256:…` of what the result depends on: `penstock.config.digest` of a registered version."""
        text = json.dumps(dict(bound_values(self)), sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


BOUND: Final = ("recipe", "training", "data", "optimizer", "schedule", "evaluation.best")
"""What a checkpoint depends on: resuming with other values would be another run. `evaluation.best` is what
its best checkpoint is the best by."""
_FREE: Final = ("data.prefetch",)
"""Of those what changes nothing."""


def bound_values(config: TrainConfig) -> Iterator[tuple[str, Any]]:
    """(`optimizer.learning_rate`, 0.001), … of all that a checkpoint depends on."""
    values = config.model_dump(mode="json")
    for place in BOUND:
        inner: Any = values
        for part in place.split("."):
            inner = inner[part]
        for name, value in _leaves(place, inner):
            if name not in _FREE:
                yield name, value


def _leaves(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{place}.{name}", inner)
    else:
        yield place, value
