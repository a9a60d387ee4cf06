"""Runs an engine on a GPU: inputs are copied there, an execution context of the profile that fits is queued (or a CUDA
graph replayed), and outputs are copied back, all on one stream, which is then waited for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from penstock.backends.device_memory import OutOfDeviceMemory, is_out_of_device_memory
from penstock.backends.tensorrt_builder import Toolkit
from penstock.backends.tensorrt_errors import TensorRtUnusable
from penstock.backends.tensorrt_graphs import Graphs
from penstock.backends.tensorrt_memory import TensorMemory
from penstock.backends.tensorrt_options import RunOptions
from penstock.backends.tensorrt_profiles import ANY, Profile, Range, best
from penstock.backends.tensorrt_tensors import data_type, engine_names
from penstock.errors import LoadFailed, ModelFailed
from penstock.types import NUMPY_DTYPES, Array

Dims = tuple[int, ...]


class Engine:
    """For one thread."""

    def __init__(self, tools: Toolkit, device: Any, plan: bytes, options: RunOptions) -> None:
        """Raises TensorRtUnusable where the plan is for another TensorRT or GPU; LoadFailed for wrong options."""
        self._tools: Final = tools
        trt = tools.trt
        self._runtime: Final = trt.Runtime(tools.logger)
        self.engine: Final = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise TensorRtUnusable(
                f"TensorRT {tools.version} with compute capability {tools.compute_capability} can't run the"
                f" plan: {tools.messages.reason('it was built for others')}"
            )
        names = list(engine_names(self.engine))
        modes = {name: self.engine.get_tensor_mode(name) for name in names}
        self._inputs: Final = [n for n in names if modes[n] == trt.TensorIOMode.INPUT]
        self._outputs: Final = [n for n in names if modes[n] == trt.TensorIOMode.OUTPUT]
        self._on_host: Final = {
            n for n in names if self.engine.get_tensor_location(n) == trt.TensorLocation.HOST
        }
        self._dtypes: Final = {n: self._dtype(n) for n in names}
        self._profiles: Final = _used(_profiles(self.engine, self._sized_inputs()), options)
        self._stream: Final = device.create_stream()
        self._graphs: Final = Graphs(self._stream, options.graphs and not self._on_host)
        self._memory: Final = TensorMemory(device, self._stream, self._graphs.clear)
        self._contexts: Final[dict[int, Any]] = {}
        self._allocators: Final[dict[str, Any]] = {}
        self._reuse = False

    def prepare(self) -> None:
        """Make the contexts, and lay out room for the largest batch, so that no address changes later."""
        for number, profile in self._profiles.items():
            context = self._context(number)
            if self._on_host:
                # sizes may follow from values
                continue
            for name, sizes in profile.inputs:
                self._memory.address(name, self._nbytes(name, sizes.largest))
                context.set_input_shape(name, sizes.largest)
            context.infer_shapes()
            for name in self._outputs:
                shape = tuple(context.get_tensor_shape(name))
                if ANY not in shape:
                    self._memory.address(name, self._nbytes(name, shape))

    @property
    def profiles(self) -> Mapping[int, Profile]:
        """Those that this instance uses, by number."""
        return self._profiles

    def begin(self) -> None:
        """The outputs of earlier calls are done with: those of the next one may lie where they were."""
        self._reuse = True

    def run(self, names: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs `names`. Raises ModelFailed, OutOfDeviceMemory."""
        reuse, self._reuse = self._reuse, False
        # they must stay until the stream was waited for
        arrays = {
            # not ascontiguousarray, which gives scalars a dimension
            name: np.asarray(feeds[name], self._dtypes[name], order="C")
            for name in self._inputs
        }
        shapes = {name: array.shape for name, array in arrays.items()}
        number = best(self._profiles, shapes)
        if number is None:
            raise ModelFailed(f"TensorRT: {_misfit(self._profiles, shapes)}")
        try:
            answers = self._queued(number, arrays, names, reuse)
        finally:
            self._stream.sync()
        return answers

    def close(self) -> None:
        """Give all that is held on the GPU back."""
        self._stream.sync()
        self._graphs.clear()
        self._contexts.clear()
        self._allocators.clear()
        self._memory.close()
        self._stream.close()

    def _queued(
        self, number: int, arrays: Mapping[str, Array], names: Sequence[str], reuse: bool
    ) -> dict[str, Array]:
        context = self._context(number)
        for name, array in arrays.items():
            on_host = name in self._on_host
            at = array.ctypes.data if on_host else self._memory.upload(name, array)
            context.set_tensor_address(name, at)
            self._must(context.set_input_shape(name, array.shape), f"the shape of {name!r}")
        missing = context.infer_shapes()
        if missing:
            raise ModelFailed(f"TensorRT: shapes don't follow for {', '.join(missing)}")
        held = {name: self._place(context, name) for name in self._outputs}
        self._must(self._enqueue(context, number, arrays), "the batch")
        return {name: self._fetch(context, name, held[name], reuse) for name in names}

    def _enqueue(self, context: Any, number: int, arrays: Mapping[str, Array]) -> bool:
        if self._allocators:
            # a graph can't ask for room
            return bool(context.execute_async_v3(int(self._stream.handle)))
        shape = (number, *(array.shape for array in arrays.values()))
        return self._graphs.run(shape, context.execute_async_v3)

    def _place(self, context: Any, name: str) -> Array | None:
        """Where an output goes: an array, where it is written on the host."""
        shape = tuple(context.get_tensor_shape(name))
        if name in self._on_host:
            array = np.empty(shape, self._dtypes[name])
            context.set_tensor_address(name, array.ctypes.data)
            return array
        if ANY in shape:
            # its size follows from values: TensorRT asks for room when it knows
            context.set_output_allocator(name, self._allocator(name))
        else:
            context.set_tensor_address(name, self._memory.address(name, self._nbytes(name, shape)))
        return None

    def _fetch(self, context: Any, name: str, held: Array | None, reuse: bool) -> Array:
        if held is not None:
            return held
        allocator = self._allocators.get(name)
        # told by the time that the batch is queued
        shape = allocator.shape if allocator else tuple(context.get_tensor_shape(name))
        return self._memory.download(name, shape, self._dtypes[name], reuse)

    def _context(self, number: int) -> Any:
        if number not in self._contexts:
            context = self.engine.create_execution_context()
            if context is None:
                reason = self._tools.messages.reason("there is no execution context")
                raise _failed(reason)
            self._must(
                context.set_optimization_profile_async(number, int(self._stream.handle)),
                f"profile {number}",
            )
            self._contexts[number] = context
        return self._contexts[number]

    def _allocator(self, name: str) -> Any:
        if name not in self._allocators:
            self._allocators[name] = _output_allocator(self._tools, self._memory)
        return self._allocators[name]

    def _must(self, done: bool, what: str) -> None:
        if not done:
            raise _failed(self._tools.messages.reason(f"it doesn't take {what}"))

    def _sized_inputs(self) -> list[str]:
        return [name for name in self._inputs if name not in self._on_host]

    def _dtype(self, name: str) -> np.dtype[Any]:
        known = data_type(name, self.engine.get_tensor_dtype(name))
        return NUMPY_DTYPES[known.removeprefix("TYPE_")]

    def _nbytes(self, name: str, shape: Dims) -> int:
        return int(np.prod(shape, dtype=np.int64)) * self._dtypes[name].itemsize


def _output_allocator(tools: Toolkit, memory: TensorMemory) -> Any:
    class Allocator(tools.trt.IOutputAllocator):  # type: ignore[misc,name-defined]
        """Room for an output whose size follows from values."""

        def __init__(self) -> None:
            tools.trt.IOutputAllocator.__init__(self)
            self.shape: Dims = ()

        def reallocate_output(
            self, tensor_name: str, memory_: Any, size: int, alignment: int
        ) -> int | None:
            return self._room(tensor_name, size)

        def reallocate_output_async(
            self, tensor_name: str, memory_: Any, size: int, alignment: int, stream: Any
        ) -> int | None:
            return self._room(tensor_name, size)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

        def _room(self, name: str, nbytes: int) -> int | None:
            try:
                return memory.address(name, nbytes)
            except OutOfDeviceMemory as error:
                # None is how TensorRT is told, and fails by
                tools.messages.take(logging.ERROR, f"out of memory: {error}")
                return None

    return Allocator()


def _profiles(engine: Any, inputs: Sequence[str]) -> dict[int, Profile]:
    return {
        number: Profile(tuple((name, _range(engine, name, number)) for name in inputs))
        for number in range(engine.num_optimization_profiles)
    }


def _range(engine: Any, name: str, number: int) -> Range:
    shape = tuple(engine.get_tensor_shape(name))
    if ANY not in shape:
        return Range(shape, shape, shape)
    smallest, usual, largest = map(tuple, engine.get_tensor_profile_shape(name, number))
    return Range(smallest, usual, largest)


def _used(profiles: Mapping[int, Profile], options: RunOptions) -> dict[int, Profile]:
    unknown = [number for number in options.profiles if number not in profiles]
    if unknown:
        raise LoadFailed(
            f"instance_group.profile asks for {unknown[0]}, expected one of"
            f" {', '.join(map(str, profiles))}, which the engine has"
        )
    return {n: p for n, p in profiles.items() if not options.profiles or n in options.profiles}


def _misfit(profiles: Mapping[int, Profile], shapes: Mapping[str, Sequence[int]]) -> str:
    """What no profile takes."""
    for name, shape in shapes.items():
        ranges = [dict(p.inputs)[name] for p in profiles.values() if name in dict(p.inputs)]
        if ranges and not any(sizes.takes(shape) for sizes in ranges):
            low, high = ranges[0].smallest, ranges[-1].largest
            return f"{name!r} has shape {list(shape)}, expected {list(low)} to {list(high)}"
    return f"no profile takes shapes {dict(shapes)} together"


def _failed(reason: str) -> Exception:
    """By what TensorRT has logged."""
    error = ModelFailed(f"TensorRT: {reason}")
    return OutOfDeviceMemory(reason) if is_out_of_device_memory(error) else error
