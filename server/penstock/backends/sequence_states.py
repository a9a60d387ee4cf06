"""Implicit state: what a model gives out for a sequence is its input for the next request. It stays in the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from penstock.errors import InvalidRequest, LoadFailed, ModelFailed
from penstock.model_config import ANY_SIZE, State, Tensor
from penstock.tensors import as_array
from penstock.types import NUMPY_DTYPES, Array, Step

FOLDER: Final = "initial_state"
"""Where data files lie in the model's folder, as in Triton."""


class SequenceStates:
    """The states of all sequences of an instance, by slot. A slot's are dropped when another sequence begins in it."""

    def __init__(self, states: Sequence[State], model_dir: Path, batching: bool) -> None:
        """Raises LoadFailed where an initial state's file can't be used."""
        self._states = states
        self._batching = batching
        self._initial = {state.input_name: _initial(state, model_dir) for state in states}
        self._slots: dict[int, Mapping[str, Array]] = {}

    def begin(self, steps: Sequence[Step]) -> None:
        """Sequences that start have the initial state."""
        for step in steps:
            if step.start:
                self._slots[step.slot] = self._initial

    def end(self, steps: Sequence[Step]) -> None:
        """Sequences that end need none any more."""
        for step in steps:
            if step.end:
                self._slots.pop(step.slot, None)

    def shapes(self, step: Step) -> tuple[tuple[int, ...], ...]:
        """Of the sequence's states: where they differ, sequences can't be in one batch."""
        return tuple([array.shape for array in self._of(step).values()])

    def inputs(self, rows: Sequence[Step | None]) -> Mapping[str, Array]:
        """State input → array of all rows; zeros where there is no request."""
        first = next(self._of(step) for step in rows if step is not None)
        arrays: dict[str, Array] = {}
        for name, like in first.items():
            each = [_zeros(like) if step is None else self._of(step)[name] for step in rows]
            # a copy, for the model may write into its inputs
            arrays[name] = np.stack(each) if self._batching else each[0].copy()
        return arrays

    def keep(self, step: Step, outputs: Mapping[str, Array], row: int | None) -> None:
        """What the model gave for a request; `row`: of the arrays, None where they are the request's own.

        Raises ModelFailed where a state is missing or is not as configured. The sequence keeps its former state then.
        """
        kept = {}
        for state in self._states:
            array = outputs.get(state.output_name)
            if array is None:
                raise ModelFailed(f"the model gave no output '{state.output_name}', which is state")
            own = _own(state, array, row)
            _check(state, own)
            # else it would keep the whole batch, or be what the model goes on writing into
            kept[state.input_name] = own.copy()
        self._slots[step.slot] = kept

    def _of(self, step: Step) -> Mapping[str, Array]:
        return self._slots.get(step.slot, self._initial)


def _own(state: State, array: Array, row: int | None) -> Array:
    if row is None:
        return array
    if array.ndim == 0 or array.shape[0] <= row:
        raise ModelFailed(
            f"output '{state.output_name}', which is state, has shape {list(array.shape)}, expected a row for each of"
            " the batch"
        )
    own: Array = array[row]
    return own


def _check(state: State, array: Array) -> None:
    dtype = NUMPY_DTYPES[_tensor(state).datatype]
    shape = array.shape
    fits = len(shape) == len(state.dims) and all(
        dim in (ANY_SIZE, size) for dim, size in zip(state.dims, shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        raise ModelFailed(
            f"output '{state.output_name}', which is state, is {array.dtype} of shape {list(shape)} a request, expected"
            f" {dtype} of {list(state.dims)}"
        )


def _initial(state: State, model_dir: Path) -> Array:
    """Zeros, with 1 for any size, unless the configuration says otherwise."""
    given = state.initial_state[0] if state.initial_state else None
    dims = given.dims if given is not None else state.dims
    shape = tuple(1 if dim == ANY_SIZE else dim for dim in dims)
    datatype = _tensor(state).datatype
    if given is not None and given.data_file:
        path = model_dir / FOLDER / given.data_file
        try:
            return as_array(datatype, shape, path.read_bytes())
        except (OSError, InvalidRequest) as error:
            raise LoadFailed(
                f"the initial state of '{state.input_name}' can't be read from {path}: {error}"
            ) from error
    return _zeros(np.empty(shape, NUMPY_DTYPES[datatype]))


def _zeros(like: Array) -> Array:
    if like.dtype.kind == "O":
        return np.full(like.shape, b"", np.object_)
    return np.zeros(like.shape, like.dtype)


def _tensor(state: State) -> Tensor:
    return Tensor(name=state.input_name, data_type=state.data_type, dims=state.dims)
