"""A PyTorch model in a worker: makes tensors of a batch, calls the model, and makes arrays of what it returns."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from typing import Final

import torch

from penstock.backends.base import Batch, LoadSpec, Outputs
from penstock.backends.batch_outputs import RowsCheck, wanted_outputs
from penstock.backends.batch_sizes import padded
from penstock.backends.completion import complete, says_nothing_of_batching
from penstock.backends.device_memory import OutOfDeviceMemory
from penstock.backends.isolation import run_isolated
from penstock.backends.ragged import BatchInputs
from penstock.backends.torch_binding import declared
from penstock.backends.torch_files import find_file
from penstock.backends.torch_forward import Forward
from penstock.backends.torch_loaders import load_program
from penstock.backends.torch_options import Options, read_options
from penstock.backends.torch_program import Program
from penstock.backends.torch_reasons import short_reason
from penstock.backends.torch_runners import CpuRunner, InputsChanged, Runner
from penstock.backends.torch_tensors import DTYPES
from penstock.errors import LoadFailed, ModelFailed, PenstockError
from penstock.model_config import ConfigDict
from penstock.types import Array

log: Final = logging.getLogger(__name__)


def load(spec: LoadSpec) -> TorchModel:
    """Raises LoadFailed with what is wrong and what was expected."""
    options = read_options(spec.config, spec.threads)
    device = device_of(spec.device)
    set_threads(options)
    torch.backends.cudnn.enabled = options.cudnn
    file = find_file(spec)
    program = load_program(file, spec, options, device)
    config = completed(spec.config, program)
    check_datatypes(config)
    forward = Forward(program, config, options, device)
    forward.choose()
    return TorchModel(program, config, _runner(forward, config, options, device))


def device_of(name: str) -> torch.device:
    """The worker's: it sees its own GPU alone, as the first one. Raises LoadFailed where torch can't use it."""
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = "is built without CUDA" if torch.version.cuda is None else "finds no GPU it can use"
        raise LoadFailed(f"the instance is to run on {name}, but torch {torch.__version__} {built}")
    return torch.device("cuda", 0)


def set_threads(options: Options) -> None:
    """For the whole process, which is one instance's."""
    torch.set_num_threads(options.intra_op_threads)
    if torch.get_num_interop_threads() == options.inter_op_threads:
        return
    try:
        torch.set_num_interop_threads(options.inter_op_threads)
    except RuntimeError:
        # once they have begun to work their number is fixed
        log.info("threads across operators stay %d", torch.get_num_interop_threads())


def completed(config: ConfigDict, program: Program) -> ConfigDict:
    """With what the model says of itself. Raises LoadFailed where the two don't fit together."""
    filled_in = says_nothing_of_batching(config)
    config = complete(config, declared(program, config))
    if program.max_rows is not None and config["max_batch_size"] > program.max_rows:
        if not filled_in:
            raise LoadFailed(
                f"max_batch_size is {config['max_batch_size']}, but the model was exported for"
                f" {program.max_rows} rows at most"
            )
        config["max_batch_size"] = program.max_rows
    return config


def check_datatypes(config: ConfigDict) -> None:
    """Raises LoadFailed on texts."""
    for tensor in (*config["input"], *config["output"]):
        if tensor["data_type"].removeprefix("TYPE_") not in DTYPES:
            raise LoadFailed(
                f"{tensor['name']!r} is {tensor['data_type']}, which no tensor of PyTorch can hold: expected one of"
                f" {', '.join(f'TYPE_{name}' for name in DTYPES)}"
            )


class TorchModel:
    """A model that is loaded, and the configuration that it filled in."""

    def __init__(self, program: Program, config: ConfigDict, runner: Runner) -> None:
        self._config = config
        self._runner = runner
        self._batch_inputs = BatchInputs(config)
        self._check_rows = RowsCheck(config)
        self._outputs = tuple(tensor["name"] for tensor in config["output"])
        uneven = config.get("batch_input") or any(
            t.get("allow_ragged_batch") for t in config["input"]
        )
        self._min_rows = program.min_rows if config["max_batch_size"] and not uneven else 1
        self._spoiled = ""

    @property
    def config(self) -> ConfigDict:
        """The configuration, complete."""
        return self._config

    def execute(self, batch: Batch) -> Outputs | Sequence[Outputs | PenstockError]:
        """Run the model once. When that fails, each request is run alone, and has its own answer or error."""
        self._spoiled = ""
        return run_isolated(self._run, batch)

    def close(self) -> None:
        """Let go of the model. It can't be run after it."""
        self._runner.close()
        del self._runner
        gc.collect()

    def _run(self, batch: Batch) -> Outputs:
        if self._spoiled:
            raise ModelFailed(self._spoiled)
        rows = batch.rows
        inputs = self._batch_inputs.added(batch)
        if rows < self._min_rows:
            return self._with_more_rows(inputs, rows, batch)
        return self._called(inputs, rows, wanted_outputs(batch, self._outputs))

    def _with_more_rows(self, inputs: Mapping[str, Array], rows: int, batch: Batch) -> Outputs:
        """Of a model that takes no batch as small as this one."""
        inputs = {name: padded(array, self._min_rows) for name, array in inputs.items()}
        outputs = self._called(inputs, self._min_rows, wanted_outputs(batch, self._outputs))
        return {name: array[:rows] for name, array in outputs.items()}

    def _called(self, inputs: Mapping[str, Array], rows: int, wanted: Sequence[str]) -> Outputs:
        try:
            outputs = self._runner.run(inputs, rows, wanted)
        except InputsChanged as error:
            # the batch's other requests would be run with what is left of their inputs
            self._spoiled = str(error)
            raise ModelFailed(self._spoiled) from error
        except (PenstockError, MemoryError, OutOfDeviceMemory):
            raise
        except Exception as error:
            raise ModelFailed(f"PyTorch: {short_reason(error)}") from error
        self._check_rows(outputs, rows)
        return outputs


def _runner(forward: Forward, config: ConfigDict, options: Options, device: torch.device) -> Runner:
    if device.type == "cpu":
        return CpuRunner(forward)
    from penstock.backends.torch_cuda import CudaRunner

    return CudaRunner(forward, config, options, device)
