"""Runs ONNX models on ONNX Runtime's CPU execution provider."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort

from penstock.backends.base import Batch, LoadSpec, Outputs
from penstock.backends.completion import BATCH_DIM, ModelTensor, Signature, complete
from penstock.backends.isolation import check_rows, one_line, run_isolated
from penstock.backends.mlflow_onnx import onnx_file, with_onnx_options
from penstock.backends.onnx_options import session_options
from penstock.backends.onnx_tensors import data_type, run_with_bf16, to_bytes, to_strings
from penstock.backends.ragged import BatchInputs, scattered_names
from penstock.errors import LoadFailed, ModelFailed, PenstockError
from penstock.model_config import ConfigDict, asks_decoupled

DEFAULT_FILENAME: Final = "model.onnx"

_ORT_PREFIX: Final = re.compile(r"^.*\[ONNXRuntimeError\] : \d+ : ")


def load(spec: LoadSpec) -> OnnxModel:
    """Load `model.onnx`, or `default_model_filename`. Raises LoadFailed with what is wrong and what was expected."""
    if asks_decoupled(spec.config):
        raise LoadFailed(
            "model_transaction_policy.decoupled is true, but an ONNX model gives each request one response;"
            " expected false"
        )
    spec = with_onnx_options(spec)
    path = model_path(spec)
    options = session_options(spec)
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise LoadFailed(f"ONNX Runtime can't load {path}: {short_reason(error)}") from error
    session.disable_fallback()  # it would only print, and run again on the same provider
    return OnnxModel(session, complete(spec.config, signature(session, spec.config)))


class OnnxModel:
    """An ONNX Runtime session, and the configuration that its model filled in."""

    def __init__(self, session: Any, config: ConfigDict) -> None:
        self._config = config
        self._batching = config["max_batch_size"] > 0
        self._outputs = tuple(tensor["name"] for tensor in config["output"])
        self._batch_inputs = BatchInputs(config)
        self._without_rows = scattered_names(config)
        self._string_inputs = _names_of(config["input"], "TYPE_STRING")
        self._string_outputs = _names_of(config["output"], "TYPE_STRING")
        tensors = (*config["input"], *config["output"])
        has_bf16 = bool(_names_of(tensors, "TYPE_BF16"))
        self._session_run = partial(run_with_bf16, session) if has_bf16 else session.run

    @property
    def config(self) -> ConfigDict:
        """The configuration, complete."""
        return self._config

    def execute(self, batch: Batch) -> Outputs | Sequence[Outputs | PenstockError]:
        """Run the model once. When that fails, each request is run alone, and has its own answer or error."""
        return run_isolated(self._run, batch)

    def close(self) -> None:
        """Give the session's memory back. The model can't be run after it."""
        del self._session_run

    def _run(self, batch: Batch) -> Outputs:
        feeds = self._feeds(batch)
        names = self._wanted(batch)
        try:
            arrays = self._session_run(names, feeds)
        except Exception as error:
            raise ModelFailed(f"ONNX Runtime: {short_reason(error)}") from error
        outputs = dict(zip(names, arrays, strict=True))
        for name in self._string_outputs.intersection(names):
            outputs[name] = to_bytes(outputs[name])
        if self._batching:
            rows = sum(request.rows for request in batch.requests)
            for name, array in outputs.items():
                if name not in self._without_rows:
                    check_rows(name, array, rows)
        return outputs

    def _feeds(self, batch: Batch) -> Outputs:
        inputs = self._batch_inputs.added(batch)
        if not self._string_inputs:
            return inputs
        return {
            name: to_strings(name, array) if name in self._string_inputs else array
            for name, array in inputs.items()
        }

    def _wanted(self, batch: Batch) -> Sequence[str]:
        """What any request of the batch asks for, so that branches of the graph that none needs are not computed."""
        wanted: set[str] = set()
        for request in batch.requests:
            if not request.outputs:
                return self._outputs
            wanted.update(request.outputs)
        return [name for name in self._outputs if name in wanted]


def model_path(spec: LoadSpec) -> Path:
    """Where the model file lies; an MLflow model says it. A folder of that name, with external weights, holds the file
    under its usual name."""
    path = onnx_file(spec) or spec.version_dir / (
        spec.config.get("default_model_filename") or DEFAULT_FILENAME
    )
    if path.is_dir():
        path /= DEFAULT_FILENAME
    if not path.is_file():
        raise LoadFailed(f"there is no model file: expected {path}")
    return path


def signature(session: Any, config: ConfigDict) -> Signature:
    """The session's inputs and outputs.

    Outputs of types that the protocol doesn't have (maps, sequences) may be left out by a configuration that lists
    the others. Raises LoadFailed otherwise.
    """
    listed = {tensor["name"] for tensor in config.get("output") or ()}
    outputs = [node for node in session.get_outputs() if not listed or node.name in listed]
    return Signature(
        [_tensor(node) for node in session.get_inputs()], [_tensor(node) for node in outputs]
    )


def short_reason(error: Exception) -> str:
    """ONNX Runtime's message on one line, without its prefix."""
    return _ORT_PREFIX.sub("", one_line(error))


def _tensor(node: Any) -> ModelTensor:
    shape = tuple(size if isinstance(size, int) else BATCH_DIM for size in node.shape)
    # ONNX Runtime shows a scalar and a tensor of unknown rank alike, as [].
    return ModelTensor(node.name, data_type(node.name, node.type), shape, shape_known=bool(shape))


def _names_of(tensors: Iterable[Mapping[str, Any]], wanted: str) -> frozenset[str]:
    return frozenset(tensor["name"] for tensor in tensors if tensor["data_type"] == wanted)
