"""Stateful models: adds controls and states to each batch, keeps states, and fills rows of slots without a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import numpy as np

from penstock import model_config
from penstock.backends.base import Answers, Batch, LoadedModel, LoadSpec, Outputs, RequestInfo
from penstock.backends.hidden_tensors import extended, hidden_names, without
from penstock.backends.isolation import as_client_sees
from penstock.backends.sequence_controls import control_arrays
from penstock.backends.sequence_states import SequenceStates
from penstock.errors import ModelFailed, PenstockError
from penstock.model_config import ConfigDict, SequenceBatching
from penstock.types import Array, Step

STATELESS: Final = ("onnxruntime", "openvino", "tensorrt")
"""Backends whose models have no state but that which the server keeps: a batch may be run again."""


def with_sequences(spec: LoadSpec, load: Callable[[LoadSpec], LoadedModel]) -> LoadedModel:
    """The loaded model, or, where it is stateful, the model in a wrapper that it needs to be told of sequences."""
    given = spec.config.get("sequence_batching")
    if given is None:
        return load(spec)
    batching = model_config.parse({"name": spec.model_name, "sequence_batching": given})
    assert batching.sequence_batching is not None, "it was given"
    return _loaded(spec, load, batching.sequence_batching)


def _loaded(
    spec: LoadSpec, load: Callable[[LoadSpec], LoadedModel], batching: SequenceBatching
) -> LoadedModel:
    hidden = hidden_names(batching, spec.config)
    model = load(replace(spec, config=extended(spec.config, batching), hidden=hidden))
    shown = {**spec.config["sequence_batching"], "max_sequence_idle_microseconds": batching.idle_us}
    config = without(model.config, hidden) | {"sequence_batching": shown}
    states = SequenceStates(batching.state, spec.model_dir, model.config["max_batch_size"] > 0)
    return SequenceModel(model, config, batching, states)


class SequenceModel:
    """A loaded model that gets `Batch.steps` as tensors."""

    def __init__(
        self,
        model: LoadedModel,
        config: ConfigDict,
        batching: SequenceBatching,
        states: SequenceStates,
    ) -> None:
        self._model = model
        self.live = getattr(model, "live", False)
        self.fallback: str = getattr(model, "fallback", "")
        self._config = config
        self._controls = batching.control_input
        self._states = states
        self._state_outputs = tuple(state.output_name for state in batching.state)
        self._outputs = tuple(tensor["name"] for tensor in config["output"])
        self._batching = config["max_batch_size"] > 0
        self._rows_are_slots = self._batching and batching.oldest is None
        self._repeatable = config.get("backend") in STATELESS

    @property
    def config(self) -> ConfigDict:
        """The configuration as clients see it."""
        return self._config

    def execute(self, batch: Batch) -> Answers:
        """Run the batch. Sequences whose states have different shapes run one after the other."""
        steps = batch.steps
        if steps is None:
            # of a warm-up: each request is a sequence
            steps = [Step(row, True, True, row + 1) for row in range(len(batch.requests))]
        self._states.begin(steps)
        try:
            groups = self._groups(steps)
            if len(groups) == 1:
                return self._run(batch, steps)
            return self._one_by_one(batch, steps, groups)
        finally:
            self._states.end(steps)

    def close(self) -> None:
        """Close the inner model."""
        self._model.close()

    def _groups(self, steps: Sequence[Step]) -> Sequence[list[int]]:
        """Places of those that can run together."""
        if len(steps) == 1 or not self._state_outputs:
            return [list(range(len(steps)))]
        groups: dict[Any, list[int]] = {}
        for place, step in enumerate(steps):
            groups.setdefault(self._states.shapes(step), []).append(place)
        return list(groups.values())

    def _one_by_one(
        self, batch: Batch, steps: Sequence[Step], groups: Sequence[list[int]]
    ) -> Sequence[Outputs | PenstockError]:
        answers: dict[int, Outputs | PenstockError] = {}
        for places in groups:
            inputs = {name: array[places] for name, array in batch.inputs.items()}
            part = replace(batch, inputs=inputs, requests=[batch.requests[p] for p in places])
            try:
                given = self._run(part, [steps[place] for place in places])
            except Exception as error:  # noqa: BLE001 - it is the answer of this part's requests
                answers.update(dict.fromkeys(places, as_client_sees(error)))
                continue
            for row, place in enumerate(places):
                answers[place] = _row(given, row) if isinstance(given, Mapping) else given[row]
        return [answers[place] for place in range(len(steps))]

    def _run(self, batch: Batch, steps: Sequence[Step]) -> Answers:
        rows: list[Step | None] = list(steps)
        places = list(range(len(steps)))
        if self._rows_are_slots:
            places = [step.slot for step in steps]
            rows = [None] * (places[-1] + 1)
            for step in steps:
                rows[step.slot] = step
        inputs = batch.inputs
        if len(rows) > len(steps):
            inputs = {name: _spread(array, places, len(rows)) for name, array in inputs.items()}
        infos = [RequestInfo(rows=1)] * len(rows)
        for place, request, step in zip(places, batch.requests, steps, strict=True):
            infos[place] = self._told(request, step)
        controls = control_arrays(self._controls, rows, self._batching)
        states = self._states.inputs(rows) if self._state_outputs else {}
        inputs = {**inputs, **controls, **states}
        answers = self._model.execute(
            replace(batch, inputs=inputs, requests=infos, steps=None, repeatable=self._repeatable)
        )
        if isinstance(answers, Mapping):
            return self._whole(answers, steps, places, len(rows))
        return self._each(answers, steps, places)

    def _told(self, request: RequestInfo, step: Step) -> RequestInfo:
        """The request as the model gets it: its state is asked for too, and it begins what a START before it, which
        was cancelled, would have begun."""
        parameters = request.parameters
        if bool(parameters.get("sequence_start")) != step.start:
            parameters = {**parameters, "sequence_start": step.start}
        outputs = request.outputs
        if self._state_outputs:
            outputs = tuple(dict.fromkeys((*(outputs or self._outputs), *self._state_outputs)))
        return msgspec.structs.replace(request, parameters=parameters, outputs=outputs)

    def _whole(
        self, outputs: Outputs, steps: Sequence[Step], places: list[int], rows: int
    ) -> Outputs:
        for step, place in zip(steps, places, strict=True):
            if self._state_outputs:
                self._states.keep(step, outputs, place if self._batching else None)
        shown = self._shown(outputs)
        if rows == len(steps):
            return shown
        return {name: array[places] for name, array in shown.items()}

    def _each(
        self,
        answers: Sequence[Outputs | PenstockError],
        steps: Sequence[Step],
        places: list[int],
    ) -> Sequence[Outputs | PenstockError]:
        if not answers:
            # of a decoupled model, which answers by itself
            return answers
        return [self._answer(answers[p], step) for step, p in zip(steps, places, strict=True)]

    def _answer(self, answer: Outputs | PenstockError, step: Step) -> Outputs | PenstockError:
        if isinstance(answer, PenstockError):
            return answer
        if self._state_outputs:
            try:
                self._states.keep(step, answer, 0 if self._batching else None)
            except ModelFailed as error:
                return error
        return self._shown(answer)

    def _shown(self, outputs: Outputs) -> Outputs:
        if not self._state_outputs:
            return outputs
        return {name: array for name, array in outputs.items() if name in self._outputs}


def _spread(array: Array, places: list[int], rows: int) -> Array:
    """Its rows at these places, and nothing at others."""
    shape = (rows, *array.shape[1:])
    if array.dtype.kind == "O":
        wider: Array = np.full(shape, b"", np.object_)
    else:
        wider = np.zeros(shape, array.dtype)
    wider[places] = array
    return wider


def _row(outputs: Outputs, row: int) -> Outputs:
    return {name: array[row : row + 1] for name, array in outputs.items()}
