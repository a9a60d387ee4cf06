"""Runs ONNX models on ONNX Runtime: on the CPU, or on a GPU by CUDA and TensorRT."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort

from penstock.backends import disk_cache
from penstock.backends.base import Batch, LoadSpec, Outputs
from penstock.backends.batch_outputs import RowsCheck, wanted_outputs
from penstock.backends.cache_folders import folder_of, open_folder
from penstock.backends.completion import (
    BATCH_DIM,
    ModelTensor,
    Signature,
    complete,
    refuse_decoupled,
)
from penstock.backends.device_memory import OutOfDeviceMemory, is_out_of_device_memory
from penstock.backends.host_memory import host_memory
from penstock.backends.isolation import one_line, run_isolated
from penstock.backends.mlflow_onnx import onnx_file, with_onnx_options
from penstock.backends.onnx_binding import BoundRun, can_bind
from penstock.backends.onnx_graph_cache import cached_session
from penstock.backends.onnx_options import session_options
from penstock.backends.onnx_providers import (
    CPU,
    CUDA,
    TENSORRT,
    Chosen,
    choose,
    wants_tensorrt,
)
from penstock.backends.onnx_tensors import data_type, run_with_bf16, to_bytes, to_strings
from penstock.backends.ragged import BatchInputs
from penstock.backends.tensorrt_key import installed_version
from penstock.errors import LoadFailed, ModelFailed, PenstockError
from penstock.model_config import ConfigDict
from penstock.model_digest import folder_digest

DEFAULT_FILENAME: Final = "model.onnx"
ENGINES: Final = "onnxruntime-tensorrt"
"""The kind of the cache where TensorRT's engines lie, a folder a model."""

_ORT_PREFIX: Final = re.compile(r"^.*\[ONNXRuntimeError\] : \d+ : ")


def load(spec: LoadSpec) -> OnnxModel:
    """Load `model.onnx`, or `default_model_filename`. Raises LoadFailed with what is wrong and what was expected."""
    refuse_decoupled(spec.config, "an ONNX model")
    spec = with_onnx_options(spec)
    path = model_path(spec)
    key = _engines_key(spec, path)
    engines = None if key is None else folder_of(ENGINES, key)
    chosen = choose(spec, ort.get_available_providers(), engines)
    with ExitStack() as held:
        if engines is None or TENSORRT not in chosen.names:
            session = _session(spec, path, chosen)
        else:
            kept = held.enter_context(closing(open_folder(engines)))
            session = _session(spec, path, chosen)
            # what it has built lies there by now
            kept.make_room()
        session.disable_fallback()  # it would only print, and run again on the same provider
        config = complete(spec.config, signature(session, spec.config))
        fallback = chosen.fallback or _left_out(session, chosen)
        if CUDA in session.get_providers():
            return GpuOnnxModel(session, config, fallback, held.pop_all())
        return OnnxModel(session, config, fallback)


def _session(spec: LoadSpec, path: Path, chosen: Chosen) -> Any:
    """Raises LoadFailed."""
    try:
        return _made(spec, path, chosen)
    except PenstockError:
        raise
    except Exception as error:
        raise LoadFailed(f"ONNX Runtime can't load {path}: {short_reason(error)}") from error


def _made(spec: LoadSpec, path: Path, chosen: Chosen) -> Any:
    if chosen.names == (CPU,):
        return cached_session(spec, path)
    if chosen.on_gpu:
        # CUDA's libraries as packages, where there are some: they lie in no folder that is searched
        getattr(ort, "preload_dlls", _nothing)()
    return ort.InferenceSession(path, session_options(spec), providers=list(chosen.providers))


def _left_out(session: Any, chosen: Chosen) -> str:
    """Providers that the package has, but that can't be used here: ONNX Runtime then goes on without them."""
    there = session.get_providers()
    missing = [name for name in chosen.names if name not in there]
    return f"ONNX Runtime can't use {' and '.join(missing)} on this machine" if missing else ""


def _engines_key(spec: LoadSpec, path: Path) -> str | None:
    """What TensorRT's engines of this model are kept by; None: they are not. Its digest, for ONNX Runtime only compares
    names, in which it has the GPU's compute capability."""
    if not wants_tensorrt(spec) or disk_cache.holds_secrets(spec.model_dir):
        return None
    accelerators = spec.config["optimization"]["execution_accelerators"]
    return disk_cache.key_of(
        folder_digest(path.parent), ort.__version__, installed_version(), accelerators
    )


class OnnxModel:
    """An ONNX Runtime session, and the configuration that its model filled in."""

    def __init__(self, session: Any, config: ConfigDict, fallback: str = "") -> None:
        self.fallback: Final = fallback
        """Why it does not run on what was asked for; empty: it does."""
        self._config = config
        self._outputs = tuple(tensor["name"] for tensor in config["output"])
        self._batch_inputs = BatchInputs(config)
        self._check_rows = RowsCheck(config)
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
        names = wanted_outputs(batch, self._outputs)
        try:
            arrays = self._session_run(names, feeds)
        except Exception as error:
            raise self._failed(error) from error
        outputs = dict(zip(names, arrays, strict=True))
        for name in self._string_outputs.intersection(names):
            outputs[name] = to_bytes(outputs[name])
        self._check_rows(outputs, batch.rows)
        return outputs

    def _failed(self, error: Exception) -> Exception:
        return ModelFailed(f"ONNX Runtime: {short_reason(error)}")

    def _feeds(self, batch: Batch) -> Outputs:
        inputs = self._batch_inputs.added(batch)
        if not self._string_inputs:
            return inputs
        return {
            name: to_strings(name, array) if name in self._string_inputs else array
            for name, array in inputs.items()
        }


class GpuOnnxModel(OnnxModel):
    """A session whose inputs and outputs cross to a GPU."""

    def __init__(self, session: Any, config: ConfigDict, fallback: str, held: ExitStack) -> None:
        """`held`: what the session uses, to be closed after it."""
        super().__init__(session, config, fallback)
        self._held: Final = held
        self._begin: Callable[[], None] = _nothing
        if can_bind(config):
            bound = BoundRun(session, config, host_memory())
            self._session_run, self._begin = bound, bound.begin

    def execute(self, batch: Batch) -> Outputs | Sequence[Outputs | PenstockError]:
        """As on the CPU. What the batch before was answered with may be gone."""
        self._begin()
        return super().execute(batch)

    def close(self) -> None:
        """As on the CPU."""
        self._begin = _nothing
        super().close()
        self._held.close()

    def _failed(self, error: Exception) -> Exception:
        if is_out_of_device_memory(error):
            return OutOfDeviceMemory(short_reason(error))
        return super()._failed(error)


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


def _nothing() -> None:
    """In place of what is not there."""


def _names_of(tensors: Iterable[Mapping[str, Any]], wanted: str) -> frozenset[str]:
    return frozenset(tensor["name"] for tensor in tensors if tensor["data_type"] == wanted)
