"""Runs an engine on a GPU: inputs are copied there, an execution context of the profile that fits is queued (or a CUDA
graph replayed), and outputs are copied back, all on one stream, which is then waited for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from penstock.backends.cuda_captures import Way
from penstock.backends.device_memory import OutOfDeviceMemory
from penstock.backends.isolation import one_line
from penstock.backends.tensorrt_builder import Toolkit
from penstock.backends.tensorrt_contexts import Contexts
from penstock.backends.tensorrt_errors import TensorRtUnusable, failure, telling_why
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
        self._contexts: Final = Contexts(tools, self.engine, self._profiles, device, self._stream)
        self._memory: Final = TensorMemory(device, self._stream, self._graphs.clear)
        self._allocators: Final[dict[str, Any]] = {}
        self._reuse = False

    def prepare(self) -> None:
        """Make the contexts, and lay out room for the largest batch, so that no address changes later."""
        for number, profile in self._profiles.items():
            context = self._contexts.of(number)
            if self._on_host:
                # sizes may follow from values
                continue
            for name, sizes in profile.inputs:
                self._memory.address(name, self._nbytes(name, sizes.largest))
                context.set_input_shape(name, sizes.largest)
            with telling_why(self._tools.messages, f"it doesn't take profile {number}"):
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
        self._allocators.clear()
        self._contexts.close()
        self._memory.close()
        self._stream.close()

    def _queued(
        self, number: int, arrays: Mapping[str, Array], names: Sequence[str], reuse: bool
    ) -> dict[str, Array]:
        # before the way is chosen: memory that moves on that occasion takes the graphs with it
        at = {name: self._at(name, array) for name, array in arrays.items()}
        key = (number, *(array.shape for array in arrays.values()))
        # a graph can't ask for room
        way = Way.PLAIN if self._allocators else self._graphs.way(key)
        if way is Way.REPLAY:
            shapes = self._graphs.replay(key).shapes
            return {name: self._download(name, shapes[name], reuse) for name in names}
        context = self._new_context(number) if way is Way.CAPTURE else None
        own = context is not None
        if context is None:
            context = self._contexts.of(number)
        held = self._set(context, arrays, at)
        if not context.execute_async_v3(int(self._stream.handle)):
            raise failure(self._tools.messages, "it doesn't take the batch")
        if own and not self._allocators:
            shapes = {name: tuple(context.get_tensor_shape(name)) for name in self._outputs}
            self._graphs.capture(key, context, shapes)
        return {name: self._fetch(context, name, held[name], reuse) for name in names}

    def _at(self, name: str, array: Array) -> int:
        """Where the engine finds an input."""
        return array.ctypes.data if name in self._on_host else self._memory.upload(name, array)

    def _new_context(self, number: int) -> Any:
        """For a graph; None: there is no room for one."""
        try:
            return self._contexts.made(number)
        except (ModelFailed, OutOfDeviceMemory) as error:
            self._graphs.stop(one_line(error))
            return None

    def _set(
        self, context: Any, arrays: Mapping[str, Array], at: Mapping[str, int]
    ) -> dict[str, Array | None]:
        """Tell the context all shapes and addresses. Returns the outputs that are written on the host."""
        for name, array in arrays.items():
            context.set_tensor_address(name, at[name])
            if not context.set_input_shape(name, array.shape):
                raise failure(self._tools.messages, f"it doesn't take the shape of {name!r}")
        with telling_why(self._tools.messages, "shapes don't follow"):
            missing = context.infer_shapes()
        if missing:
            raise ModelFailed(f"TensorRT: shapes don't follow for {', '.join(missing)}")
        return {name: self._place(context, name) for name in self._outputs}

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
        return self._download(name, shape, reuse)

    def _download(self, name: str, shape: Dims, reuse: bool) -> Array:
        return self._memory.download(name, shape, self._dtypes[name], reuse)

    def _allocator(self, name: str) -> Any:
        if name not in self._allocators:
            self._allocators[name] = _output_allocator(self._tools, self._memory)
        return self._allocators[name]

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
        ) -> int:
            return self._room(tensor_name, size)

        def reallocate_output_async(
            self, tensor_name: str, memory_: Any, size: int, alignment: int, stream: Any
        ) -> int:
            return self._room(tensor_name, size)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

        def _room(self, name: str, nbytes: int) -> int:
            try:
                return memory.address(name, nbytes)
            except Exception as error:  # noqa: BLE001 (it would be printed, and lost)
                reason = f"out of memory: {error}" if type(error) is OutOfDeviceMemory else error
                tools.messages.take(logging.ERROR, str(reason))
                # null is how TensorRT is told, and fails by
                return 0

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
