"""One call of a PyTorch model: inputs in its own order, in the mode, datatype and memory format that are asked for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from penstock import model_config
from penstock.backends.torch_binding import Inputs, Results
from penstock.backends.torch_options import AUTO, OFF, Options
from penstock.backends.torch_program import Program
from penstock.backends.torch_reasons import short_reason
from penstock.backends.torch_tensors import DTYPES
from penstock.errors import LoadFailed, ModelFailed
from penstock.model_config import ConfigDict

log: Final = logging.getLogger(__name__)

IMAGE_DIMENSIONS: Final = 4
CLEARLY_FASTER: Final = 0.9
"""Of the time without it: what an `auto` takes to be worth it."""
TRIALS: Final = 5
MAX_TRIAL_S: Final = 1.0
TRIAL_ROWS: Final = 8

_AUTOCAST: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}

Tensors = Mapping[str, torch.Tensor]


class Forward:
    """Called with tensors on the model's device, by input's name; returns those of its outputs."""

    def __init__(
        self, program: Program, config: ConfigDict, options: Options, device: torch.device
    ) -> None:
        """Raises LoadFailed where the model's inputs and outputs, or the options, don't fit the model."""
        parsed = model_config.parse(config)
        made = [name for given in parsed.batch_input for name in given.target_name]
        names = [tensor.name for tensor in parsed.input]
        optional = [tensor.name for tensor in parsed.input if tensor.optional]
        self._program = program
        self._config = parsed
        self._options = options
        self._device = device
        self._inputs = Inputs(program, [*names, *made], optional)
        self._results = Results(program, [tensor.name for tensor in parsed.output])
        self._dtypes = {tensor.name: DTYPES[tensor.datatype] for tensor in parsed.output}
        self._mode = torch.inference_mode if options.inference_mode else torch.no_grad
        self._autocast: torch.dtype | None = _AUTOCAST.get(options.autocast)
        self._channels_last = False
        self._check()

    def __call__(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """Raises ModelFailed where what the model returns is not what its configuration says."""
        with self._mode():
            if self._channels_last:
                tensors = {name: _as_nhwc(tensor) for name, tensor in tensors.items()}
            elif not self._program.strides:
                tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
            positional, keywords = self._inputs(tensors)
            if self._autocast is None:
                returned = self._program.call(positional, keywords)
            else:
                with torch.autocast(self._device.type, self._autocast):
                    returned = self._program.call(positional, keywords)
            outputs = self._results(returned)
            return {name: self._checked(name, value) for name, value in outputs.items()}

    def choose(self) -> None:
        """Have what the options ask for, and measure what they leave to us. Called once, before the first call."""
        if self._options.channels_last == "1":
            self._set_channels_last(True)
        asked = self._options
        if AUTO not in (asked.channels_last, asked.autocast):
            return
        example = self._example()
        if example is None:
            log.info("auto: inputs of any size can't be tried, so nothing is changed")
            return
        if asked.channels_last == AUTO and any(
            t.ndim == IMAGE_DIMENSIONS for t in example.values()
        ):
            self._keep_if_faster("channels_last", example, self._set_channels_last)
        if asked.autocast == AUTO and _has_fast_bf16(self._device):
            self._keep_if_faster("autocast", example, self._set_autocast)

    def _check(self) -> None:
        if self._options.autocast != OFF and not self._program.casts:
            raise LoadFailed(
                "parameter 'autocast' can't change what AOTInductor has compiled; expected 0"
            )
        if self._options.channels_last != OFF and not self._program.strides:
            raise LoadFailed(
                "parameter 'channels_last' can't change what AOTInductor has compiled; expected 0"
            )

    def _checked(self, name: str, value: Any) -> torch.Tensor:
        if not isinstance(value, torch.Tensor):
            raise ModelFailed(f"output {name!r} is {type(value).__name__}, expected a tensor")
        wanted = self._dtypes[name]
        if value.dtype is wanted:
            return value
        if self._autocast is not None and value.is_floating_point() and wanted.is_floating_point:
            return value.to(wanted)
        raise ModelFailed(f"output {name!r} is {value.dtype}, expected {wanted}")

    def _set_channels_last(self, on: bool) -> None:
        self._channels_last = on
        if self._program.module is not None:
            memory_format = torch.channels_last if on else torch.contiguous_format
            for weight in self._program.module.parameters():
                if weight.ndim == IMAGE_DIMENSIONS:
                    weight.data = weight.data.contiguous(memory_format=memory_format)

    def _set_autocast(self, on: bool) -> None:
        self._autocast = torch.bfloat16 if on else None

    def _keep_if_faster(self, name: str, example: Tensors, switch: Callable[[bool], None]) -> None:
        try:
            before = self._seconds(example)
            switch(True)
            after = self._seconds(example)
        except Exception as error:  # noqa: BLE001 (zeros may be nothing for the model, or it goes by strides: no reason not to serve it)
            switch(False)
            log.info("auto: %s is not for this model: %s", name, short_reason(error))
            return
        if after > CLEARLY_FASTER * before:
            switch(False)
        log.info(
            "auto: %s takes %.3f ms a batch, %.3f ms without it", name, after * 1e3, before * 1e3
        )

    def _seconds(self, example: Tensors) -> float:
        """The best of some runs. Raises what the model raises."""
        best, started = float("inf"), time.perf_counter()
        for trial in range(TRIALS + 1):
            begun = time.perf_counter()
            self(example)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            now = time.perf_counter()
            # the first one allocates and compiles
            best = min(best, now - begun) if trial or now - started > MAX_TRIAL_S else best
            if now - started > MAX_TRIAL_S:
                break
        return best

    def _example(self) -> dict[str, torch.Tensor] | None:
        """Zeros; None where some input may have any size."""
        config = self._config
        rows = (min(config.max_batch_size, TRIAL_ROWS),) if config.max_batch_size else ()
        if config.batch_input or any(t.allow_ragged_batch for t in config.input):
            return None
        if any(size < 0 for tensor in config.input for size in tensor.dims):
            return None
        return {
            t.name: torch.zeros((*rows, *t.dims), dtype=DTYPES[t.datatype], device=self._device)
            for t in config.input
        }


def _as_nhwc(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.ndim != IMAGE_DIMENSIONS:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def _has_fast_bf16(device: torch.device) -> bool:
    """Whether the processor computes with it, and doesn't only widen it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
