"""`reshape` of the configuration: clients see a tensor with `dims`, the model the same elements in another shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from penstock.backends.base import (
    Batch,
    LiveRequest,
    LoadedModel,
    Outputs,
    RequestInfo,
    Stream,
    stream_of,
)
from penstock.errors import ModelFailed, PenstockError
from penstock.model_config import ConfigDict, asks_decoupled
from penstock.types import Parameter

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name → dims without the batch dimension; -1 is any size."""


def with_reshapes(model: LoadedModel) -> LoadedModel:
    """The model itself, or, where its configuration reshapes a tensor, the model in a wrapper that does it."""
    inputs = {t["name"]: tuple(t["reshape"].get("shape") or ()) for t in _reshaped(model, "input")}
    outputs = {t["name"]: tuple(t["dims"]) for t in _reshaped(model, "output")}
    return ReshapedModel(model, inputs, outputs) if inputs or outputs else model


class ReshapedModel:
    """A loaded model whose inputs and outputs are reshaped on the way."""

    live: bool

    def __init__(self, model: LoadedModel, inputs: Shapes, outputs: Shapes) -> None:
        self._model = model
        self._inputs = inputs
        self._outputs = outputs
        self._batching = bool(model.config.get("max_batch_size"))
        self._decoupled = asks_decoupled(model.config)
        self.live = getattr(model, "live", False)
        self.fallback: str = getattr(model, "fallback", "")

    @property
    def config(self) -> ConfigDict:
        """The inner model's configuration."""
        return self._model.config

    def execute(self, batch: Batch) -> Outputs | Sequence[Outputs | PenstockError]:
        """Run the batch. Raises ModelFailed when an array has not as many elements as its new shape needs."""
        inputs = self._reshape(batch.inputs, self._inputs)
        requests = batch.requests
        if self._decoupled:
            requests = list(map(self._reshaping, requests))
        answer = self._model.execute(replace(batch, inputs=inputs, requests=requests))
        if isinstance(answer, Mapping):
            return self._reshape(answer, self._outputs)
        return [
            one if isinstance(one, PenstockError) else self._reshape(one, self._outputs)
            for one in answer
        ]

    def close(self) -> None:
        """Close the inner model."""
        self._model.close()

    def _reshaping(self, request: RequestInfo) -> RequestInfo:
        assert isinstance(request, LiveRequest), "decoupled models are live"
        stream = ReshapedStream(stream_of(request), self._outputs_of)
        return msgspec.structs.replace(request, line=stream)

    def _outputs_of(self, outputs: Outputs) -> Outputs:
        return self._reshape(outputs, self._outputs)

    def _reshape(self, arrays: Outputs, shapes: Shapes) -> Outputs:
        reshaped = dict(arrays)
        for name in reshaped.keys() & shapes.keys():
            array = reshaped[name]
            rows = array.shape[:1] if self._batching else ()
            try:
                reshaped[name] = array.reshape(rows + shapes[name])
            except ValueError as error:
                raise ModelFailed(
                    f"{name!r} of shape {list(array.shape)} can't be reshaped to"
                    f" {[*rows, *shapes[name]]}, as the configuration asks"
                ) from error
        return reshaped


class ReshapedStream:
    """A stream whose outputs are reshaped on the way."""

    def __init__(self, stream: Stream, reshape: Callable[[Outputs], Outputs]) -> None:
        self._stream = stream
        self._reshape = reshape
        self.parameters = stream.parameters

    def is_cancelled(self) -> bool:
        """As Line says."""
        return self._stream.is_cancelled()

    def send(
        self,
        outputs: Outputs | PenstockError | None,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        final: bool = False,
    ) -> None:
        """As Stream says."""
        if isinstance(outputs, Mapping):
            try:
                outputs = self._reshape(outputs)
            except ModelFailed as error:
                outputs = error
        self._stream.send(outputs, parameters, final=final)

    def fail(self, error: PenstockError) -> None:
        """As Stream says."""
        self._stream.fail(error)


def _reshaped(model: LoadedModel, kind: str) -> list[dict[str, Any]]:
    return [t for t in model.config.get(kind) or () if t.get("reshape") is not None]
