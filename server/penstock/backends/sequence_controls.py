"""Control inputs: what a model is told of the sequences in a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from penstock.backends.hidden_tensors import control_type
from penstock.model_config import CORRELATION_ID, Control, ControlInput
from penstock.types import NUMPY_DTYPES, Array, Step

READY: Final = "CONTROL_SEQUENCE_READY"
START: Final = "CONTROL_SEQUENCE_START"


def control_arrays(
    controls: Iterable[ControlInput], steps: Sequence[Step | None], batching: bool
) -> Mapping[str, Array]:
    """Name → array of one element a row, of shape [rows, 1], or [1] where the model doesn't batch.

    None is a row without a request: its READY is false, and its other controls say nothing.
    """
    shape = (len(steps), 1) if batching else (1,)
    return {given.name: _array(given.control[0], steps).reshape(shape) for given in controls}


def _array(control: Control, steps: Sequence[Step | None]) -> Array:
    data_type = control_type(control)
    if control.kind == CORRELATION_ID:
        return _ids(data_type, steps)
    values = control.int32_false_true or control.fp32_false_true or control.bool_false_true
    told = [values[_is_true(control.kind, step)] for step in steps]
    return np.array(told, NUMPY_DTYPES[data_type.removeprefix("TYPE_")])


def _is_true(kind: str, step: Step | None) -> bool:
    if step is None:
        return False
    return kind == READY or (step.start if kind == START else step.end)


def _ids(data_type: str, steps: Sequence[Step | None]) -> Array:
    if data_type == "TYPE_STRING":
        texts: list[Any] = [b"" if step is None else str(step.id).encode() for step in steps]
        return np.array(texts, np.object_)
    numbers = [0 if step is None else int(step.id) for step in steps]
    return np.array(numbers, NUMPY_DTYPES[data_type.removeprefix("TYPE_")])
