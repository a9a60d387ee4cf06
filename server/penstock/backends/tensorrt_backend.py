"""Runs models on TensorRT: a plan, or the engine that is built of an ONNX file. Where that can't be, the ONNX file runs
on ONNX Runtime in its place, and the model says why."""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib import import_module
from typing import Any, Final

from penstock.backends import onnxruntime_backend
from penstock.backends.base import Answers, Batch, LoadedModel, LoadSpec, Outputs
from penstock.backends.batch_outputs import RowsCheck, wanted_outputs
from penstock.backends.completion import complete, refuse_decoupled
from penstock.backends.isolation import one_line, run_isolated
from penstock.backends.ragged import BatchInputs
from penstock.backends.tensorrt_errors import Messages, TensorRtUnusable, make_logger
from penstock.backends.tensorrt_options import build_options, free_dims, run_options
from penstock.backends.tensorrt_plan import Files, find_files, onnx_filename
from penstock.backends.tensorrt_profiles import with_rows
from penstock.backends.tensorrt_tensors import engine_signature
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

PLATFORM: Final = "tensorrt_plan"
PLATFORM_IN_ITS_PLACE: Final = "onnxruntime_onnx"
"""What the model's metadata say where ONNX Runtime runs it."""

log = logging.getLogger(__name__)


def load(spec: LoadSpec) -> LoadedModel:
    """Load `model.plan`, or else `model.onnx`, or `default_model_filename`. Raises LoadFailed with what is wrong and
    what was expected."""
    refuse_decoupled(spec.config, "an engine")
    # what is wrong with them is wrong wherever the model runs
    build_options(spec.config)
    free_dims(spec.config)
    run_options(spec.config)
    files = find_files(spec)
    try:
        return _on_tensorrt(spec, files)
    except TensorRtUnusable as error:
        reason = " ".join(str(error).split())
    # out here the exception is gone, whose traceback may hold an engine on the GPU
    return _in_its_place(spec, files, reason)


class TensorRtModel:
    """An engine, and the configuration that it filled in."""

    fallback: Final = ""

    def __init__(self, engine: Any, config: ConfigDict) -> None:
        """`engine`: a tensorrt_engine.Engine."""
        self._engine = engine
        self._config = config
        self._outputs = tuple(tensor["name"] for tensor in config["output"])
        self._batch_inputs = BatchInputs(config)
        self._check_rows = RowsCheck(config)
        # states are kept from batch to batch
        self._reuse = not config.get("sequence_batching")

    @property
    def config(self) -> ConfigDict:
        """The configuration, complete."""
        return self._config

    def execute(self, batch: Batch) -> Answers:
        """Run the engine once. When that fails, each request is run alone, and has its own answer or error. What the
        batch before was answered with may be gone."""
        if self._reuse:
            self._engine.begin()
        return run_isolated(self._run, batch)

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._engine.close()

    def _run(self, batch: Batch) -> Outputs:
        # the engine computes all of them anyway
        outputs: Outputs = self._engine.run(
            wanted_outputs(batch, self._outputs), self._batch_inputs.added(batch)
        )
        self._check_rows(outputs, batch.rows)
        return outputs


class InItsPlace:
    """The ONNX model that runs where the engine can't."""

    def __init__(self, model: LoadedModel, config: ConfigDict, fallback: str) -> None:
        self.fallback: Final = fallback
        self._model: Final = model
        self._config: Final = config

    @property
    def config(self) -> ConfigDict:
        """The configuration, complete; its platform is what really runs."""
        return self._config

    def execute(self, batch: Batch) -> Answers:
        """As the ONNX model does."""
        return self._model.execute(batch)

    def close(self) -> None:
        """Give the session's memory back."""
        self._model.close()


def _on_tensorrt(spec: LoadSpec, files: Files) -> TensorRtModel:
    tools, device = _toolkit(spec)
    # these import CUDA
    engines = import_module("penstock.backends.tensorrt_engine")
    if files.plan is not None:
        plan = files.plan.read_bytes()
    else:
        assert files.onnx is not None, "there is one of them"
        builder = import_module("penstock.backends.tensorrt_builder")
        plan = builder.built_plan(tools, spec, files.onnx)
    engine = engines.Engine(tools, device, plan, run_options(spec.config))
    completed = complete(spec.config, engine_signature(tools.trt, engine.engine))
    config = with_rows(completed, spec.config, engine.profiles)
    engine.prepare()
    return TensorRtModel(engine, {**config, "platform": spec.config.get("platform") or PLATFORM})


def _toolkit(spec: LoadSpec) -> tuple[Any, Any]:
    """TensorRT, and the GPU that it runs on. Raises TensorRtUnusable that says which of them is not there."""
    if spec.device == "cpu":
        raise TensorRtUnusable("TensorRT needs a GPU, and this instance runs on the CPU")
    try:
        trt = import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise TensorRtUnusable(
            f"the package tensorrt is not there, or not whole ({one_line(error)});"
            " expected penstock[tensorrt]"
        ) from error
    try:
        core = import_module("cuda.core")
        device = core.Device(0)
        device.set_current()
        capability = ".".join(map(str, device.compute_capability))
    except Exception as error:
        raise TensorRtUnusable(f"no GPU can be used: {one_line(error)}") from error
    builder = import_module("penstock.backends.tensorrt_builder")
    messages = Messages()
    logger = make_logger(trt, messages)
    # engines may hold TensorRT's own plugins, such as those for boxes
    trt.init_libnvinfer_plugins(logger, "")
    return builder.Toolkit(trt, logger, messages, capability), device


def _in_its_place(spec: LoadSpec, files: Files, reason: str) -> InItsPlace:
    if files.onnx is None:
        assert files.plan is not None, "there is one of them"
        raise LoadFailed(
            f"{files.plan.name} can't be run: {reason}; expected model.onnx beside it, for ONNX Runtime"
        )
    filename = onnx_filename(spec, files.onnx)
    given = {**spec.config, "default_model_filename": filename}
    model = onnxruntime_backend.load(replace(spec, config=given))
    config = {**model.config, "platform": PLATFORM_IN_ITS_PLACE}
    config.pop("default_model_filename")
    if "default_model_filename" in spec.config:
        config["default_model_filename"] = spec.config["default_model_filename"]
    told = f"{reason}: ONNX Runtime runs {filename} in its place"
    return InItsPlace(model, config, "; ".join(filter(None, (told, model.fallback))))
