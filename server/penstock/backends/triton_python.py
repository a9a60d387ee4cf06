"""Runs Triton's `TritonPythonModel`: batches as lists of requests, responses as dicts of arrays."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from penstock.backends.base import Batch, LoadSpec, Outputs, RequestInfo
from penstock.backends.byte_arrays import is_text, to_byte_array
from penstock.backends.hidden_tensors import without
from penstock.backends.isolation import one_line
from penstock.backends.model_module import load_failed, where_in_model
from penstock.backends.triton_model_config import ModelConfig
from penstock.backends.triton_objects import error_of
from penstock.backends.triton_python_backend_utils import using_decoupled_model_transaction_policy
from penstock.backends.triton_requests import InferenceResponse, ModelIdentity, requests_of
from penstock.errors import LoadFailed, ModelFailed, PenstockError
from penstock.model_config import ConfigDict
from penstock.types import Array

_logger = logging.getLogger(__name__)


def load(spec: LoadSpec, model_class: type) -> TritonPythonModelRunner:
    """Complete the configuration, make an instance, and initialize it. Raises LoadFailed."""
    if not callable(getattr(model_class, "execute", None)):
        raise LoadFailed(f"class {model_class.__name__} has no method execute(self, requests)")
    config = _auto_completed(spec, model_class)
    _check_served(config)
    try:
        instance = model_class()
        initialize = getattr(instance, "initialize", None)
        if initialize is not None:
            initialize(initialize_arguments(spec, config))
    except Exception as error:
        raise load_failed(error, spec.model_dir, "initialize") from error
    return TritonPythonModelRunner(spec, config, instance)


class TritonPythonModelRunner:
    """A `TritonPythonModel` that is initialized."""

    def __init__(self, spec: LoadSpec, config: ConfigDict, instance: Any) -> None:
        self._config = config
        self._instance = instance
        self._instance_name = spec.instance_name
        self._model_dir = spec.model_dir
        names = tuple(tensor["name"] for tensor in config["output"])
        self._identity = ModelIdentity(spec.model_name, spec.version, names)
        self._outputs = frozenset(names)
        self._byte_outputs = tuple(
            tensor["name"] for tensor in config["output"] if tensor["data_type"] == "TYPE_STRING"
        )

    @property
    def config(self) -> ConfigDict:
        """The configuration, with what `auto_complete_config` added."""
        return self._config

    def execute(self, batch: Batch) -> Sequence[Outputs | PenstockError]:
        """One answer a request, with the outputs it asked for. Raises ModelFailed when `execute` raised.

        A failed batch is not run again: a Triton model may have state.
        """
        responses = self._respond(batch)
        if not isinstance(responses, list):
            raise ModelFailed(
                "Expected a list in the execute return, found type"
                f" '{type(responses).__name__}' in model '{self._identity.name}'"
            )
        if len(responses) != len(batch.requests):
            raise ModelFailed(
                "Number of InferenceResponse objects do not match the number of InferenceRequest"
                f" objects. InferenceRequest(s) size is:{len(batch.requests)}, and"
                f" InferenceResponse(s) size is:{len(responses)}"
            )
        for response in responses:
            if response is not None and not isinstance(response, InferenceResponse):
                raise ModelFailed(
                    "Expected an 'InferenceResponse' object in the execute function return list,"
                    f" found type '{type(response).__name__}'"
                )
        return list(map(self._answer, responses, batch.requests))

    def close(self) -> None:
        """Call `finalize`, if there is one. What it raises goes to the log."""
        finalize = getattr(self._instance, "finalize", None)
        if finalize is None:
            return
        try:
            finalize()
        except Exception:
            _logger.exception("finalize of %s failed", self._instance_name)

    def _respond(self, batch: Batch) -> Any:
        try:
            return self._instance.execute(requests_of(batch, self._identity))
        except Exception as error:
            _logger.exception("execute of %s failed", self._instance_name)
            where = where_in_model(error, self._model_dir)
            raise ModelFailed(
                "Failed to process the request(s) for model instance"
                f" '{self._instance_name}', message: {one_line(error)}"
                f"{f' ({where})' if where else ''}"
            ) from error

    def _answer(
        self, response: InferenceResponse | None, request: RequestInfo
    ) -> Outputs | PenstockError:
        if response is None:
            return ModelFailed("the model returned None for this request, no InferenceResponse")
        error = response._error
        if error is not None:
            return error_of(error)
        wanted = request.outputs or self._outputs
        try:
            outputs: dict[str, Array] = {
                tensor._name: tensor._array
                for tensor in response._tensors
                if tensor._name in wanted
            }
        except (AttributeError, TypeError):
            return ModelFailed("the model's InferenceResponse holds no list of pb_utils.Tensor")
        for name in self._byte_outputs:
            array = outputs.get(name)
            if array is not None and is_text(array):
                outputs[name] = to_byte_array(array)
        return outputs


def initialize_arguments(spec: LoadSpec, config: ConfigDict) -> dict[str, str]:
    """What Triton hands to `initialize`: strings only, the configuration as JSON."""
    kind, _, ordinal = spec.device.partition(":")
    return {
        "model_config": json.dumps(without(config, spec.hidden)),
        "model_instance_kind": "GPU" if kind == "cuda" else "CPU",
        "model_instance_name": spec.instance_name,
        "model_instance_device_id": ordinal or "0",
        "model_repository": str(spec.model_dir),
        "model_version": str(spec.version),
        "model_name": spec.model_name,
    }


def _auto_completed(spec: LoadSpec, model_class: type) -> ConfigDict:
    config = {"name": spec.model_name, "max_batch_size": 0, "input": [], "output": []}
    config |= spec.config
    auto_complete = getattr(model_class, "auto_complete_config", None)
    if auto_complete is None:
        return config
    try:
        completed = auto_complete(ModelConfig(json.dumps(config)))
    except Exception as error:
        raise load_failed(error, spec.model_dir, "auto_complete_config") from error
    if not isinstance(completed, ModelConfig):
        raise LoadFailed(
            "auto_complete_config must return the ModelConfig it was given,"
            f" found {type(completed).__name__}"
        )
    return completed.as_dict()


def _check_served(config: ConfigDict) -> None:
    for kind in ("input", "output"):
        if not config.get(kind):
            raise LoadFailed(
                f"the model has no {kind}: expected one in config.pbtxt, or in the model's"
                " auto_complete_config"
            )
    for key in ("batch_input", "batch_output"):
        if config.get(key):
            raise LoadFailed(
                f"{key} is not for class TritonPythonModel, which gets each request by itself, with"
                " its own shapes; expected none"
            )
    if using_decoupled_model_transaction_policy(config):
        raise LoadFailed("the model is decoupled, which Penstock does not serve")
