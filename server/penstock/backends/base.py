"""The contract between a worker and the backend that runs its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from penstock.errors import PenstockError
from penstock.model_config import ConfigDict
from penstock.types import Array, Parameter, Step, Uneven

Outputs = Mapping[str, Array]
"""Output name → array."""


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What a worker is told to load."""

    model_name: str
    version: int
    model_dir: Path
    """The model's folder; the version's files are in `model_dir / str(version)`."""
    config: ConfigDict
    """Triton's ModelConfig as JSON, maybe with inputs and outputs still to be filled in."""
    instance_name: str
    device: str
    """`cpu` or `cuda:N`."""
    threads: int
    """Compute threads this instance may use."""
    hidden: frozenset[str] = frozenset()
    """Inputs and outputs in `config` that clients don't see, since the server makes and takes them."""

    @property
    def version_dir(self) -> Path:
        """The folder of this version's files."""
        return self.model_dir / str(self.version)


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """One request of a batch."""

    rows: int
    """Its share of the batch dimension; 1 where the model doesn't batch."""
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    """Names of the outputs asked for; empty: all."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The inputs of some requests, joined along the first dimension (but for `uneven`).

    The arrays are views of shared memory (BYTES: object arrays of `bytes`), valid until `execute` returns.
    Where the model does not batch there is exactly one request, and the arrays are its own.
    """

    inputs: Mapping[str, Array]
    requests: Sequence[RequestInfo]
    steps: Sequence[Step] | None = None
    """Of stateful models: each request's place in its sequence."""
    uneven: Uneven | None = None
    """Set where requests are joined though their shapes differ: ragged inputs have one dimension, all elements."""
    repeatable: bool = True
    """Where running the batch fails, its requests may be run again. False: the model may have state of its own."""


class LoadedModel(Protocol):
    """A model that is ready to run, in one worker, called by one thread."""

    @property
    def config(self) -> ConfigDict:
        """The configuration with what the model's files could fill in (inputs, outputs, max_batch_size)."""
        ...

    def execute(self, batch: Batch) -> Outputs | Sequence[Outputs | PenstockError]:
        """Run the batch.

        Returns either the outputs of the whole batch (first dimension: the sum of the requests' rows), or one answer
        a request, in order: its outputs or its error. Raises anything when the whole batch failed.
        """
        ...

    def close(self) -> None:
        """Give back what the model holds. Called once, after the last `execute`."""
        ...


class Backend(Protocol):
    """Loads models of one kind. A backend is a module-level function or class instance named `load`."""

    def __call__(self, spec: LoadSpec) -> LoadedModel:
        """Load the model. Raises LoadFailed with a reason for a person; other exceptions are told with their type."""
        ...
