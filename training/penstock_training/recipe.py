"""What a data scientist writes: one class that says what is trained on what. The loop does all the rest.

A recipe draws its chance from torch's default generator only: the loop seeds it before each micro-batch, so that
dropout and augmentation are the same wherever and whenever that micro-batch is computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from penstock.config_section import Section
from penstock_training.config import TrainConfig
from penstock_training.data_config import TableSettings

Batch = Mapping[str, Tensor]
"""Tensors by name; the first dimension of each is the sample."""


class Dataset(Protocol):
    """Rows that can be asked for by number, many at once. Every process may ask for any of them, and reads its part."""

    def __len__(self) -> int: ...

    def fetch(self, rows: Tensor) -> Batch:
        """The samples of these rows (int64), in this order, on the CPU."""
        ...


@runtime_checkable
class OrderedDataset(Dataset, Protocol):
    """A dataset that is read faster in an order of its own, such as block by block."""

    def order(self, seed: int, epoch: int) -> Tensor:
        """All row numbers in the order of that epoch: by its arguments alone, the same in every process."""
        ...


@dataclass(frozen=True)
class Splits:
    """The rows of a run. No row is in two of them."""

    train: Dataset
    """What the weights are fitted to."""
    validation: Dataset
    """What checkpoints are compared by, and the training is stopped by."""
    test: Dataset
    """What is looked at once, when all is decided."""


class Lake(Protocol):
    """Tables by name; `data/lake.py` is the real one."""

    def pin(self, table: TableSettings) -> TableSettings:
        """The table with its version filled in: what is there now."""
        ...

    def open(self, table: TableSettings) -> Any:
        """The table at that version, of which nothing is read yet. Raises DataError where it is not there any more."""
        ...

    def read(self, table: TableSettings) -> Any:
        """All of it, as a `pyarrow.Table`."""
        ...


class Recipe(ABC):
    """Base of all recipes. `inputs` and what `serving_model` gives back name the signature of the registered model."""

    Options: ClassVar[type[Section]] = Section
    """Declares `[recipe.options]`."""

    inputs: ClassVar[tuple[str, ...]]
    """Names of the batch's tensors that the model takes, in the order of its `forward`; the served model's inputs."""
    outputs: ClassVar[tuple[str, ...]]
    """Names of what the *served* model gives back. Of a classifier the first is its [n, classes] of probabilities."""
    target: ClassVar[str] = "label"
    """Name of the batch's tensor that holds what is right."""
    class_names: tuple[str, ...] = ()
    """Of a classifier: its classes, in the order of its scores."""

    def __init__(self, config: TrainConfig, options: Any) -> None:
        self.config = config
        self.options = options
        """`[recipe.options]`, as an `Options`."""

    @abstractmethod
    def model(self) -> nn.Module:
        """The untrained model, on the CPU. Its weights come from torch's default generator, which is seeded."""

    @abstractmethod
    def datasets(self, lake: Lake) -> Splits:
        """The rows: the same in every process. Tables are those of `self.config.data.tables`, with pinned versions."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """One loss for each sample, [n]: the loop takes the exact mean over the batch of all processes."""

    def metrics(self, outputs: Any, batch: Batch) -> Mapping[str, Tensor]:
        """What validation counts beside the loss, one value for each sample, [n]: their exact means are shown."""
        return {}

    def served_metrics(self, outputs: Mapping[str, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        """What the gates of a registration and the report count of the *served* model's outputs, one value for each
        sample, [n]. Of a classifier's probabilities accuracy, calibration and so on are counted without it."""
        return {}

    def augment(self, batch: Batch) -> Batch:
        """A training batch, changed by chance. It is on the device already."""
        return batch

    def serving_model(self, model: nn.Module) -> nn.Module:
        """What is exported and served, of the trained model: with a softmax, for example."""
        return model

    @abstractmethod
    def example_input(self) -> Batch:
        """A few samples of the model's inputs, on the CPU: the export traces them, the signature is theirs."""

    def labels(self, batch: Batch) -> Tensor:
        """Of a classifier: the right class of each sample, [n], int64."""
        return batch[self.target]

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """What the model says of a batch."""
        return model(*(batch[name] for name in self.inputs))

    def parts(self, model: nn.Module) -> Iterable[nn.Module]:
        """With FSDP: modules that are put together one at a time. The blocks of a transformer, for example."""
        return [
            part for inner in model.modules() if isinstance(inner, nn.ModuleList) for part in inner
        ]
