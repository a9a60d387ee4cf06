"""How far a run is: numbers that a checkpoint keeps beside the tensors, and that a person can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from penstock_training.early_stopping import Best


@dataclass(frozen=True)
class State:
    """After `step` optimizer steps. Rows, learning rate and chance of the next ones follow from that number."""

    step: int = 0
    best: Best = field(default_factory=Best)
    window: tuple[float, ...] = ()
    """Losses of the steps since the last point of the curve."""
    done: bool = False
    """Nothing is left to train: all epochs are over, or it was stopped early."""
    scaler: Mapping[str, Any] = field(default_factory=dict)
    """Of float16."""

    def to_json(self) -> dict[str, Any]:
        """For the checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> State:
        """As it was."""
        given = dict(values)
        return cls(best=Best(**given.pop("best")), window=tuple(given.pop("window")), **given)
