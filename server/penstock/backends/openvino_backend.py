"""Runs models on OpenVINO's CPU plugin: its own format, and all that it reads, such as ONNX."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from penstock.backends.base import Batch, LoadSpec, Outputs
from penstock.backends.batch_outputs import RowsCheck, wanted_outputs
from penstock.backends.batch_sizes import padded
from penstock.backends.completion import (
    BATCH_DIM,
    ModelTensor,
    Signature,
    complete,
    refuse_decoupled,
)
from penstock.backends.isolation import one_line, run_isolated
from penstock.backends.openvino_library import openvino
from penstock.backends.openvino_options import Options, options_of
from penstock.backends.openvino_shapes import fix_batch, free_batch, take_dims
from penstock.backends.openvino_tensors import (
    WIDE,
    check_range,
    data_type,
    from_openvino,
    shareable,
    to_openvino,
)
from penstock.backends.ragged import BatchInputs, scattered_names
from penstock.errors import LoadFailed, ModelFailed, PenstockError
from penstock.model_config import ConfigDict
from penstock.types import Array

log = logging.getLogger(__name__)

DEFAULT_FILENAMES: Final = ("model.xml", "model.onnx")
"""Which files are looked for, in this order, where the configuration names none."""

DEVICE: Final = "CPU"

_PLACE: Final = re.compile(r"Exception from \S+:\d+: |Check '.*?' failed at \S+?:\d+: ")
"""Where in OpenVINO's source something was noticed."""
_LONGEST: Final = 400
"""Characters of a reason that are worth reading."""


def load(spec: LoadSpec) -> OpenvinoModel:
    """Load `model.xml` with its `model.bin`, `model.onnx`, or `default_model_filename`. Raises LoadFailed with what is
    wrong and what was expected."""
    refuse_decoupled(spec.config, "a model of OpenVINO's")
    if spec.device != "cpu":
        raise LoadFailed(f"the openvino backend runs on CPUs, not on {spec.device}")
    options = options_of(spec)
    path = model_path(spec)
    ov = openvino()
    core = ov.Core()
    if options.extension is not None:
        _explained(f"the library {options.extension}", core.add_extension, str(options.extension))
    model = _explained(str(path), core.read_model, str(path))
    names = _names(model, spec.config)
    config = _completed(model, names, spec.config, options, path)
    compiled = _explained(str(path), core.compile_model, model, DEVICE, dict(options.properties))
    request = compiled.create_infer_request()
    if request.query_state():
        # rows of a batch belong to other clients than those of the last one
        raise LoadFailed(
            f"{path}: the model has state of its own, which its next batch would see; expected"
            " states as inputs and outputs, which sequence_batching.state keeps apart"
        )
    return OpenvinoModel(ov, request, config, names, options)


class OpenvinoModel:
    """A compiled model, and the configuration that it filled in."""

    def __init__(
        self,
        ov: Any,
        request: Any,
        config: ConfigDict,
        names: tuple[Sequence[str], Sequence[str]],
        options: Options,
    ) -> None:
        self._ov = ov
        self._request = request
        self._config = config
        self._input_names, output_names = names
        types = {tensor["name"]: tensor["data_type"] for tensor in config["output"]}
        self._outputs = {name: (i, types[name]) for i, name in enumerate(output_names)
                         if name in types}  # fmt: skip
        self._names = tuple(self._outputs)
        self._wide = {t["name"] for t in config["input"] if t["data_type"] in WIDE}
        self._batch_inputs = BatchInputs(config)
        self._without_rows = scattered_names(config)
        self._check_rows = RowsCheck(config)
        self._only_rows = config["max_batch_size"] if options.fixed_batch else 0
        self._padding = options.padding

    @property
    def config(self) -> ConfigDict:
        """The configuration, complete."""
        return self._config

    def execute(self, batch: Batch) -> Outputs | Sequence[Outputs | PenstockError]:
        """Run the model once. When that fails, each request is run alone, and has its own answer or error."""

        def run(part: Batch) -> Outputs:
            outputs = self._run(part)
            # the next request's run would overwrite them
            return outputs if part is batch else {n: array.copy() for n, array in outputs.items()}

        return run_isolated(run, batch)

    def close(self) -> None:
        """Give back the compiled model's memory, and its files. The model can't be run after it."""
        del self._request

    def _run(self, batch: Batch) -> Outputs:
        rows = batch.rows
        inputs = self._batch_inputs.added(batch)
        for name in self._wide:
            check_range(name, inputs[name])
        if self._only_rows:
            inputs = {name: self._filled(array, rows) for name, array in inputs.items()}
        self._infer(inputs)
        outputs: dict[str, Array] = {}
        for name in wanted_outputs(batch, self._names):
            index, kind = self._outputs[name]
            outputs[name] = from_openvino(self._request.get_output_tensor(index), kind)
        self._check_rows(outputs, self._only_rows or rows)
        if self._only_rows > rows:
            return {
                name: array if name in self._without_rows else array[:rows]
                for name, array in outputs.items()
            }
        return outputs

    def _infer(self, inputs: Outputs) -> None:
        request, ov = self._request, self._ov
        # as long as the model runs on their memory
        arrays = [shareable(inputs[name]) for name in self._input_names]
        try:
            for index, array in enumerate(arrays):
                request.set_input_tensor(index, to_openvino(ov, array))
            request.infer(None, share_outputs=True)
        except Exception as error:
            raise ModelFailed(f"OpenVINO: {short_reason(error)}") from error

    def _filled(self, array: Array, rows: int) -> Array:
        if rows < self._only_rows and not self._padding:
            raise ModelFailed(
                f"SKIP_OV_DYNAMIC_BATCHSIZE is YES: the model runs batches of {self._only_rows}"
                f" rows alone, and this one has {rows}; ENABLE_BATCH_PADDING fills them up"
            )
        return padded(array, self._only_rows)


def model_path(spec: LoadSpec) -> Path:
    """Where the model file lies. Raises LoadFailed."""
    given = spec.config.get("default_model_filename")
    paths = [spec.version_dir / name for name in ([given] if given else DEFAULT_FILENAMES)]
    for path in paths:
        if path.exists():
            return path
    raise LoadFailed(f"there is no model file: expected {' or '.join(map(str, paths))}")


def short_reason(error: Exception) -> str:
    """OpenVINO's message on one line, without the lines of its source."""
    text = _PLACE.sub("", " ".join(str(error).split())).strip() or one_line(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _explained(what: str, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        raise LoadFailed(f"OpenVINO can't load {what}: {short_reason(error)}") from error


def _completed(
    model: Any,
    names: tuple[Sequence[str], Sequence[str]],
    config: ConfigDict,
    options: Options,
    path: Path,
) -> ConfigDict:
    """The complete configuration; the model's shapes are made such as it says. Raises LoadFailed."""
    inputs, _ = names
    if options.reshape:
        _explained(str(path), take_dims, model, inputs, config)
    elif config.get("max_batch_size"):
        _explained(str(path), free_batch, model)
    completed = complete(config, _signature(model, names, config))
    _warn_of_doubles(completed)
    if options.fixed_batch and completed["max_batch_size"]:
        _explained(str(path), fix_batch, model, completed["max_batch_size"])
    return completed


def _signature(
    model: Any, names: tuple[Sequence[str], Sequence[str]], config: ConfigDict
) -> Signature:
    """Outputs of types that can't be served may be left out by a configuration that lists the others."""
    listed = {tensor["name"] for tensor in config.get("output") or ()}
    inputs, outputs = names
    return Signature(
        [_tensor(name, port) for name, port in zip(inputs, model.inputs, strict=True)],
        [
            _tensor(name, port)
            for name, port in zip(outputs, model.outputs, strict=True)
            if not listed or name in listed
        ],
    )


def _tensor(name: str, port: Any) -> ModelTensor:
    kind = data_type(name, port.get_element_type().get_type_name())
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return ModelTensor(name, kind, (), shape_known=False)
    sizes = [BATCH_DIM if size.is_dynamic else size.get_length() for size in shape]
    return ModelTensor(name, kind, tuple(sizes))


def _names(model: Any, config: ConfigDict) -> tuple[Sequence[str], Sequence[str]]:
    """What inputs and outputs are called: tensors of OpenVINO's have several names, or none."""
    return (
        [_name(port, config.get("input") or ()) for port in model.inputs],
        [_name(port, config.get("output") or ()) for port in model.outputs],
    )


def _name(port: Any, given: Iterable[Mapping[str, Any]]) -> str:
    names = sorted(port.get_names())
    configured = [tensor["name"] for tensor in given if tensor["name"] in names]
    return str([*configured, *names, port.get_node().get_friendly_name()][0])


def _warn_of_doubles(config: ConfigDict) -> None:
    tensors = (*config["input"], *config["output"])
    doubles = [repr(t["name"]) for t in tensors if t["data_type"] == "TYPE_FP64"]
    if doubles:
        log.warning("OpenVINO computes FP64 as FP32 on CPUs: %s", ", ".join(doubles))
