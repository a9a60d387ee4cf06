"""Runs a class decorated with `penstock.model`: arrays of the whole batch in, arrays of the whole batch out."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from penstock.backends.base import (
    Batch,
    LoadSpec,
    ModelRequest,
    OtherModels,
    Outputs,
    stream_of,
)
from penstock.backends.batch_outputs import check_rows, divided
from penstock.backends.byte_arrays import is_text, to_byte_array
from penstock.backends.completion import (
    BATCH_DIM,
    ModelTensor,
    Signature,
    has_scheduler,
    model_dims,
    says_nothing_of_batching,
    with_tensors,
)
from penstock.backends.device_memory import OutOfDeviceMemory, is_out_of_device_memory
from penstock.backends.isolation import one_line, run_isolated
from penstock.backends.model_module import load_failed
from penstock.backends.parameters import string_parameters
from penstock.backends.ragged import BatchInputs, scattered_names
from penstock.backends.readings import asked_for, begin
from penstock.errors import LoadFailed, ModelFailed, PenstockError, Unavailable
from penstock.model_api import MODEL_ATTRIBUTE, Context, Infer, ModelDeclaration, Spec
from penstock.model_config import ConfigDict, Tensor, asks_decoupled
from penstock.types import NUMPY_DTYPES, Array, Parameter

_logger = logging.getLogger(__name__)

_ENDED: Final = object()


def load(spec: LoadSpec, model_class: type) -> DecoratedModel:
    """Complete the configuration by the declaration, and make an instance. Raises LoadFailed."""
    declaration: ModelDeclaration = getattr(model_class, MODEL_ATTRIBUTE)
    call = _checked_call(model_class, declaration)
    generates = inspect.isgeneratorfunction(call)
    config = completed(spec.config, declaration, decoupled=generates)
    try:
        takes_context = bool(inspect.signature(model_class).parameters)
        instance = model_class(_context(spec)) if takes_context else model_class()
    except Exception as error:
        raise load_failed(error, spec.model_dir, f"{model_class.__name__}.__init__") from error
    return GeneratorModel(instance, config) if generates else DecoratedModel(instance, config)


class DecoratedModel:
    """An instance of a decorated class."""

    def __init__(self, instance: Any, config: ConfigDict) -> None:
        self._instance = instance
        self._config = config
        self._batching = config["max_batch_size"] > 0
        self._batch_inputs = BatchInputs(config)
        scattered = scattered_names(config)
        self._outputs = {
            t["name"]: _OutputCheck(t, self._batching, scattered=t["name"] in scattered)
            for t in config["output"]
        }

    @property
    def config(self) -> ConfigDict:
        """The configuration, with what the declaration filled in."""
        return self._config

    @property
    def fallback(self) -> str:
        """The model's own attribute of that name, where it is a text."""
        fallback = getattr(self._instance, "fallback", "")
        return fallback if isinstance(fallback, str) else ""

    def execute(self, batch: Batch) -> Outputs | Sequence[Outputs | PenstockError]:
        """Call the model once. When that fails, it is called for each request alone."""
        begin(batch.number, len(batch.requests))
        return run_isolated(self._run, batch)

    def close(self) -> None:
        """Call the model's `close`, if there is one. What it raises goes to the log."""
        close = getattr(self._instance, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception:
            _logger.exception("close of the model failed")

    def _run(self, batch: Batch) -> Outputs:
        inputs = {n: _read_only(array) for n, array in self._batch_inputs.added(batch).items()}
        try:
            returned = self._instance(**inputs)
        except Exception as error:
            if is_out_of_device_memory(error):
                raise OutOfDeviceMemory(one_line(error)) from error
            raise
        return self._checked(returned, batch.rows)

    def _checked(self, returned: Any, rows: int) -> Outputs:
        if not isinstance(returned, Mapping) or returned.keys() != self._outputs.keys():
            raise ModelFailed(
                f"the model returned {_describe(returned)}, expected a dict with"
                f" {', '.join(self._outputs)}"
            )
        return {name: check(returned[name], rows) for name, check in self._outputs.items()}


class GeneratorModel(DecoratedModel):
    """An instance of a decorated class whose call is a generator: a decoupled model."""

    live = True

    def execute(self, batch: Batch) -> Sequence[Outputs | ModelFailed]:
        """Send what the generator yields, to each request its rows, until it ends or nobody wants more."""
        streams = [stream_of(request) for request in batch.requests]
        total = batch.rows
        inputs = {n: _read_only(array) for n, array in self._batch_inputs.added(batch).items()}
        yielded = self._instance(**inputs)
        try:
            while not all([stream.is_cancelled() for stream in streams]):
                outputs = next(yielded, _ENDED)
                if outputs is _ENDED:
                    break
                whole = self._checked(outputs, total)
                for stream, own in zip(streams, divided(whole, batch.requests), strict=True):
                    stream.send(own)
        finally:
            yielded.close()
        for stream in streams:
            stream.send(None, final=True)
        return ()


class _OutputCheck:
    """Makes an array of what the model returned for one output. Raises ModelFailed where it isn't as declared."""

    def __init__(self, tensor: Mapping[str, Any], batching: bool, *, scattered: bool) -> None:
        """`scattered`: it holds the elements of all requests, in whatever shape."""
        dims = model_dims(tensor)
        self._name = tensor["name"]
        self._datatype = Tensor(name="", data_type=tensor["data_type"], dims=()).datatype
        self._dtype = NUMPY_DTYPES[self._datatype]
        self._batching = batching
        self._scattered = scattered
        self._shape = (BATCH_DIM, *dims) if batching else tuple(dims)

    def __call__(self, value: Any, rows: int) -> Array:
        array = np.asarray(value)
        if self._datatype == "BYTES" and is_text(array):
            array = to_byte_array(array)
        if array.dtype != self._dtype:
            raise ModelFailed(
                f"output {self._name!r} has dtype {array.dtype}, expected {self._dtype}"
                f" ({self._datatype})"
            )
        if self._scattered:
            return array
        if self._batching:
            check_rows(self._name, array, rows)
        if len(array.shape) != len(self._shape) or any(
            expected not in (BATCH_DIM, size)
            for expected, size in zip(self._shape, array.shape, strict=True)
        ):
            raise ModelFailed(
                f"output {self._name!r} has shape {list(array.shape)}, expected {list(self._shape)}"
            )
        return array


def completed(
    config: ConfigDict, declaration: ModelDeclaration, *, decoupled: bool = False
) -> ConfigDict:
    """The configuration with what it leaves open taken from the declaration. Raises LoadFailed where they differ.

    `decoupled`: the call is a generator.
    """
    full: ConfigDict = {"max_batch_size": 0, **config}
    if decoupled:
        full["model_transaction_policy"] = {"decoupled": True}
    elif asks_decoupled(full):
        raise LoadFailed(
            "model_transaction_policy.decoupled is true, but __call__ is no generator: expected one that yields"
            " a dict for each response"
        )
    if says_nothing_of_batching(config):
        full["max_batch_size"] = declaration.max_batch_size
    batching = bool(full["max_batch_size"])
    if batching and not has_scheduler(full):
        delay_us = declaration.max_queue_delay_us
        full["dynamic_batching"] = {"max_queue_delay_microseconds": delay_us}
    if not full.get("instance_group"):
        full["instance_group"] = [{"kind": "KIND_CPU", "count": declaration.instances}]
    signature = Signature(
        [_tensor(name, spec, batching) for name, spec in declaration.inputs.items()],
        [_tensor(name, spec, batching) for name, spec in declaration.outputs.items()],
    )
    return with_tensors(full, signature)


def _tensor(name: str, spec: Spec, batching: bool) -> ModelTensor:
    data_type = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
    shape = (BATCH_DIM, *spec.dims) if batching else spec.dims
    return ModelTensor(name, data_type, shape, optional=spec.optional, labels=spec.labels)


def _context(spec: LoadSpec) -> Context:
    return Context(
        name=spec.model_name,
        version=spec.version,
        directory=spec.version_dir,
        device="cpu" if spec.device == "cpu" else "cuda:0",
        threads=spec.threads,
        parameters=string_parameters(spec.config),
        infer=_infer(spec.others),
    )


def _infer(others: OtherModels | None) -> Infer:
    def infer(
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: Sequence[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
    ) -> dict[str, Array]:
        if others is None:
            raise Unavailable("other models can't be reached from here")
        batch, requests = asked_for()
        request = ModelRequest(
            model,
            "" if version is None else str(version),
            {name: np.asarray(value) for name, value in inputs.items()},
            tuple(outputs),
            parameters=parameters or {},
            batch=batch,
            requests=requests,
        )
        answer = others.ask(request).next()
        if answer.error is not None:
            raise answer.error
        return dict(answer.outputs)

    return infer


def _checked_call(model_class: type, declaration: ModelDeclaration) -> Callable[..., Any]:
    """The `__call__`. Refused at load is what would fail at each request: one that can't take the declared inputs by
    name."""
    call = inspect.getattr_static(model_class, "__call__", None)
    if not inspect.isfunction(call):
        raise LoadFailed(f"class {model_class.__name__} has no method __call__")
    required = [name for name, spec in declaration.inputs.items() if not spec.optional]
    signature = inspect.signature(call)
    for names in (required, list(declaration.inputs)):
        try:
            signature.bind(None, **dict.fromkeys(names))
        except TypeError as error:
            raise LoadFailed(
                f"{model_class.__name__}.__call__{signature} can't be called with the declared"
                f" inputs {', '.join(names)}: {error}"
            ) from error
    return call


def _read_only(array: Array) -> Array:
    """A view that can't be written to: a model that changed its input would see that when it is run again."""
    view = array.view()
    view.flags.writeable = False
    return view


def _describe(returned: Any) -> str:
    if isinstance(returned, Mapping):
        return f"a dict with {', '.join(map(str, returned)) or 'nothing'}"
    return f"{type(returned).__name__}"
