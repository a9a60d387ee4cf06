"""Runs Triton's `TritonPythonModel`: batches as lists of requests, responses as dicts of arrays."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from penstock.backends.base import Batch, LoadSpec, Outputs, RequestInfo, line_of, stream_of
from penstock.backends.coroutines import Coroutines
from penstock.backends.device_lost import check_device, lost_reason
from penstock.backends.hidden_tensors import without
from penstock.backends.isolation import one_line
from penstock.backends.model_module import load_failed, where_in_model
from penstock.backends.triton_model_config import ModelConfig
from penstock.backends.triton_requests import InferenceRequest, ModelIdentity, requests_of
from penstock.backends.triton_responses import (
    NO_RESPONSE,
    SECOND_RESPONSE,
    Answering,
    InferenceResponse,
    checked_parameters,
)
from penstock.errors import LoadFailed, ModelFailed, PenstockError
from penstock.model_config import ConfigDict, asks_decoupled

_logger = logging.getLogger(__name__)


def load(
    spec: LoadSpec, model_class: type, request_class: type[InferenceRequest] = InferenceRequest
) -> TritonPythonModelRunner:
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
    return TritonPythonModelRunner(spec, config, instance, request_class)


class TritonPythonModelRunner:
    """A `TritonPythonModel` that is initialized."""

    live = True

    def __init__(
        self,
        spec: LoadSpec,
        config: ConfigDict,
        instance: Any,
        request_class: type[InferenceRequest],
    ) -> None:
        self._config = config
        self._instance = instance
        self._instance_name = spec.instance_name
        self._model_dir = spec.model_dir
        names = tuple(tensor["name"] for tensor in config["output"])
        text = [t["name"] for t in config["output"] if t["data_type"] == "TYPE_STRING"]
        self._answering = Answering(names, text)
        self._decoupled = asks_decoupled(config)
        self._identity = ModelIdentity(
            spec.model_name,
            spec.version,
            names,
            self._answering,
            request_class,
            decoupled=self._decoupled,
        )
        self._coroutines = Coroutines()
        self._lost: BaseException | None = None
        """What a coroutine has raised that this process does not survive."""

    @property
    def config(self) -> ConfigDict:
        """The configuration, with what `auto_complete_config` added."""
        return self._config

    def execute(self, batch: Batch) -> Sequence[Outputs | PenstockError]:
        """One answer a request, with the outputs it asked for; none where the model is decoupled. Raises ModelFailed
        when `execute` raised.

        A failed batch is not run again: a Triton model may have state.
        """
        if self._lost is not None:
            check_device(self._lost)
        requests = requests_of(batch, self._identity)
        responses = self._respond(requests)
        if self._decoupled:
            if inspect.iscoroutine(responses):
                self._follow(self._coroutines.start(responses), batch.requests)
            elif responses is not None:
                raise self._failure(
                    f"Python model '{self._instance_name}' is using the decoupled mode and the"
                    " execute function must return None."
                )
            return ()
        if responses is None and any(request._only for request in requests):
            responses = [None] * len(requests)
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
        return list(map(self._answer, responses, requests))

    def close(self) -> None:
        """Call `finalize`, if there is one. What it raises goes to the log."""
        self._coroutines.close()
        finalize = getattr(self._instance, "finalize", None)
        if finalize is None:
            return
        try:
            finalize()
        except Exception:
            _logger.exception("finalize of %s failed", self._instance_name)

    def _respond(self, requests: list[InferenceRequest]) -> Any:
        try:
            returned = self._instance.execute(requests)
            if inspect.iscoroutine(returned) and not self._decoupled:
                return self._coroutines.start(returned).result()
        except Exception as error:
            _logger.exception("execute of %s failed", self._instance_name)
            where = where_in_model(error, self._model_dir)
            raise self._failure(f"{one_line(error)}{f' ({where})' if where else ''}") from error
        return returned

    def _answer(
        self, response: InferenceResponse | None, request: InferenceRequest
    ) -> Outputs | PenstockError:
        if request._only is not None:
            place, _ = request._only
            if response is None:
                response = place.wait()
            elif place.used:
                return ModelFailed(SECOND_RESPONSE)
        if response is None:
            return ModelFailed(NO_RESPONSE)
        info = request._info
        if response._parameters and (line := line_of(info)) is not None:
            try:
                line.parameters = checked_parameters(response)
            except ModelFailed as error:
                return error
        return self._answering(response, info.outputs)

    def _follow(self, execution: Future[Any], requests: Sequence[RequestInfo]) -> None:
        """Have the requests of a decoupled model's coroutine fail when that does."""

        def ended(execution: Future[Any]) -> None:
            error = None if execution.cancelled() else execution.exception()
            if error is None:
                return
            _logger.error("execute of %s failed", self._instance_name, exc_info=error)
            if lost_reason(error):
                # this thread can't end the process: the next batch does
                self._lost = error
            for request in requests:
                stream_of(request).fail(self._failure(one_line(error)))

        execution.add_done_callback(ended)

    def _failure(self, text: str) -> ModelFailed:
        return ModelFailed(
            "Failed to process the request(s) for model instance"
            f" '{self._instance_name}', message: {text}"
        )


def initialize_arguments(spec: LoadSpec, config: ConfigDict) -> dict[str, str]:
    """What Triton hands to `initialize`: strings only, the configuration as JSON."""
    on_gpu = spec.device != "cpu"
    return {
        "model_config": json.dumps(without(config, spec.hidden)),
        "model_instance_kind": "GPU" if on_gpu else "CPU",
        "model_instance_name": spec.instance_name,
        # as models make `cuda:…` of it: the worker sees one GPU, whatever its number
        "model_instance_device_id": "0",
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
