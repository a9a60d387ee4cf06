"""How a run tells the world of itself. Only rank 0 has a tracker; `mlflow_tracking.py` is the one of MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from penstock_training.config import TrainConfig

Status = Literal["finished", "stopped", "failed"]
"""stopped: somebody wanted it, and it can be resumed."""


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run when it starts, beside its configuration."""

    folder: Path
    """The run's own folder: what a tracker has to remember for a resume (such as MLflow's run id) lies here too."""
    world_size: int
    device: str
    """`cpu`, or the name of the GPU."""
    parallel: Literal["none", "ddp", "fsdp"]
    micro_batch_size: int
    accumulation: int
    """Micro-batches of one process for one step."""
    parameters: int
    """Weights that are trained."""
    rows: Mapping[str, int]
    """train, validation, test."""
    total_steps: int
    resumed_from_step: int | None
    """The step that the run goes on after; None: it begins."""
    restarts: int = 0
    """How often processes have died in this start already."""


class Tracker(Protocol):
    """Called by rank 0 in this order: start, then any number of the next two, then finish. An error that it raises does
    not end the training: the loop says it once and goes on; a tracker tries again by itself."""

    def start(self, config: TrainConfig, facts: RunFacts) -> None:
        """Opens the run, or the same one again after a resume or a restart: metrics of steps after `resumed_from_step`
        are noted a second time then."""
        ...

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """`train/loss`, `train/learning_rate`, `train/samples_per_s`, `epoch`, `validation/loss` and others.
        Must not wait for the network."""
        ...

    def checkpoint(self, folder: Path, step: int) -> None:
        """A complete checkpoint lies there. It may be deleted later, when newer ones come."""
        ...

    def finish(self, status: Status) -> None:
        """The processes end. Waits until all is sent, within bounds."""
        ...


class NoTracker:
    """Notes nothing."""

    def start(self, config: TrainConfig, facts: RunFacts) -> None: ...

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None: ...

    def checkpoint(self, folder: Path, step: int) -> None: ...

    def finish(self, status: Status) -> None: ...
