"""Runs PyTorch models on a GPU: copies on a stream of their own, and CUDA graphs a batch size.

Never run where Penstock is made, for want of a GPU: it is written against torch's documented interface. What can be
tested without one (which batches are padded to which sizes, what is captured) is in torch_buckets.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from penstock.backends.base import Outputs
from penstock.backends.batch_sizes import preferred_sizes
from penstock.backends.cuda_captures import Captures, Way
from penstock.backends.device_memory import OutOfDeviceMemory, is_out_of_device_memory
from penstock.backends.isolation import one_line
from penstock.backends.torch_buckets import Shape, bucket_of, bucket_sizes, padded_shape
from penstock.backends.torch_forward import Forward
from penstock.backends.torch_options import Options
from penstock.backends.torch_tensors import to_array, to_tensor
from penstock.errors import ModelFailed
from penstock.model_config import ConfigDict
from penstock.types import Array

log: Final = logging.getLogger(__name__)

WARM_UP_RUNS: Final = 3
"""Before a capture, so that libraries have what they allocate and choose once."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A graph, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]


class CudaRunner:
    """One model on one GPU. Batches run one after the other, so that graphs may share their memory."""

    def __init__(
        self, forward: Forward, config: ConfigDict, options: Options, device: torch.device
    ) -> None:
        self._forward = forward
        self._device = device
        self._clean = options.cache_cleaning
        self._copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._computing = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._sizes = _sizes(config, options) if options.cuda_graphs else ()
        self._captures = Captures(options.max_graphs)
        self._graphs: dict[Shape, Captured] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._sizes else None

    def run(self, inputs: Mapping[str, Array], rows: int, wanted: Sequence[str]) -> Outputs:
        """Raises OutOfDeviceMemory, or what the model raises."""
        try:
            return self._run(inputs, rows, wanted)
        except Exception as error:
            # the GPU may still read the slab, which may be written to or unmapped as soon as this returns
            self._copying.synchronize()
            self._computing.synchronize()
            if not is_out_of_device_memory(error):
                raise
            reason = one_line(error)
        finally:
            if self._clean:
                torch.cuda.empty_cache()
        # out here the exception is gone, and with it the tensors that it held, whose room a smaller batch needs
        torch.cuda.empty_cache()
        raise OutOfDeviceMemory(reason)

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._graphs.clear()
        del self._forward, self._pool
        gc.collect()
        torch.cuda.empty_cache()

    def _run(self, inputs: Mapping[str, Array], rows: int, wanted: Sequence[str]) -> Outputs:
        size = bucket_of(rows, self._sizes)
        if size is None or any(len(array) != rows for array in inputs.values()):
            return self._plain(inputs, wanted)
        shape = padded_shape(inputs, size)
        way = self._captures.way(shape)
        if way is Way.CAPTURE and not self._capture(shape, size, inputs, rows):
            way = Way.PLAIN
        if way is Way.PLAIN:
            return self._plain(inputs, wanted)
        return self._replay(self._graphs[shape], inputs, rows, wanted)

    def _plain(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> Outputs:
        with torch.cuda.stream(self._copying):
            # the slab is pinned where the driver allowed it; then this does not wait
            tensors = {
                name: to_tensor(array).to(self._device, non_blocking=True)
                for name, array in inputs.items()
            }
        self._computing.wait_stream(self._copying)
        with torch.cuda.stream(self._computing):
            for tensor in tensors.values():
                tensor.record_stream(self._computing)
            outputs = self._forward(tensors)
        return self._brought(outputs, wanted)

    def _replay(
        self, captured: Captured, inputs: Mapping[str, Array], rows: int, wanted: Sequence[str]
    ) -> Outputs:
        self._fill(captured.inputs, inputs, rows)
        with torch.cuda.stream(self._computing):
            captured.graph.replay()
        outputs = {name: tensor[:rows] for name, tensor in captured.outputs.items()}
        return self._brought(outputs, wanted)

    def _fill(
        self, tensors: Mapping[str, torch.Tensor], inputs: Mapping[str, Array], rows: int
    ) -> None:
        with torch.cuda.stream(self._copying):
            for name, array in inputs.items():
                tensor = tensors[name]
                tensor[:rows].copy_(to_tensor(array), non_blocking=True)
                # rows that are added are the same each time, and nobody else's
                tensor[rows:].zero_()
        self._computing.wait_stream(self._copying)

    def _capture(self, shape: Shape, size: int, inputs: Mapping[str, Array], rows: int) -> bool:
        """Make a graph for inputs of these shapes. False where the model can't be captured, or there is no room."""
        try:
            self._graphs[shape] = self._captured(shape, size, inputs, rows)
        except Exception as error:  # noqa: BLE001 (what it is of the batch itself shows when that runs without)
            self._captures.failed(shape)
            log.warning(
                "no CUDA graph for %s, which runs without: %s", dict(shape), one_line(error)
            )
            return False
        self._captures.done(shape)
        return True

    def _captured(
        self, shape: Shape, size: int, inputs: Mapping[str, Array], rows: int
    ) -> Captured:
        computing = self._computing
        with torch.cuda.stream(self._copying):
            static = {
                name: torch.empty(dims, dtype=to_tensor(inputs[name]).dtype, device=self._device)
                for name, dims in shape
            }
        for _ in range(WARM_UP_RUNS):
            # of the batch itself, anew each time: the model may do badly with zeros, and may write into its inputs
            self._fill(static, inputs, rows)
            with torch.cuda.stream(computing):
                self._forward(static)
            self._copying.wait_stream(computing)
        computing.synchronize()
        graph = torch.cuda.CUDAGraph()
        # of this thread only: others may register slabs meanwhile
        with torch.cuda.graph(
            graph, pool=self._pool, stream=computing, capture_error_mode="thread_local"
        ):
            outputs = self._forward(static)
        self._copying.wait_stream(computing)
        for name, tensor in outputs.items():
            # a graph writes nothing that lies elsewhere, and rows that are no batch's can't be cut off
            if not tensor.is_cuda or tensor.ndim == 0 or len(tensor) != size:
                raise ModelFailed(
                    f"output {name!r} has shape {list(tensor.shape)} on {tensor.device}, expected {size} rows on"
                    " the GPU"
                )
        return Captured(graph, static, outputs)

    def _brought(self, outputs: Mapping[str, torch.Tensor], wanted: Sequence[str]) -> Outputs:
        """Copies in pinned memory, which torch keeps for the next batch."""
        self._copying.wait_stream(self._computing)
        with torch.cuda.stream(self._copying):
            hosts = {}
            for name in wanted:
                tensor = outputs[name]
                host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                hosts[name] = host.copy_(tensor, non_blocking=True)
                if tensor.is_cuda:
                    # else a model made it on the CPU, such as a size
                    tensor.record_stream(self._copying)
        self._copying.synchronize()
        return {name: to_array(host) for name, host in hosts.items()}


def _sizes(config: ConfigDict, options: Options) -> tuple[int, ...]:
    return bucket_sizes(config["max_batch_size"], preferred_sizes(config), options.max_graphs)
