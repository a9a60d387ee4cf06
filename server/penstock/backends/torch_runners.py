"""What brings a batch to a PyTorch model's device and its outputs back: on the CPU, neither is moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from penstock.backends.base import Outputs
from penstock.backends.torch_forward import Forward
from penstock.backends.torch_reasons import short_reason
from penstock.backends.torch_tensors import to_array, to_tensor
from penstock.types import Array


class InputsChanged(Exception):
    """The model failed after it had written into its inputs: they are not what clients sent any more."""


class Runner(Protocol):
    """Runs batches on one device."""

    def run(self, inputs: Mapping[str, Array], rows: int, wanted: Sequence[str]) -> Outputs:
        """The wanted outputs, in memory that stays as it is until the next call. Raises anything."""
        ...

    def close(self) -> None:
        """Let go of the model, and of the device's memory."""
        ...


class CpuRunner:
    """The inputs are views of the slab."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def run(self, inputs: Mapping[str, Array], rows: int, wanted: Sequence[str]) -> Outputs:
        """Raises InputsChanged, or what the model raises."""
        tensors = {name: to_tensor(array) for name, array in inputs.items()}
        try:
            outputs = self._forward(tensors)
        except Exception as error:
            if _was_written(tensors):
                raise InputsChanged(
                    f"PyTorch: {short_reason(error)} (after the model had written into its inputs, so that no request"
                    " of the batch can be run again)"
                ) from error
            raise
        return {name: to_array(outputs[name]) for name in wanted}

    def close(self) -> None:
        """It holds nothing else."""
        del self._forward


def _was_written(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Operators that write in place count up the tensor's version."""
    return any(tensor._version for tensor in tensors.values())
