"""A GPU's memory for the inputs and outputs of one engine, and the machine's that it is copied to."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import numpy as np

from penstock.backends.device_lost import CudaFailed
from penstock.backends.device_memory import OutOfDeviceMemory, is_out_of_device_memory
from penstock.backends.host_memory import host_memory
from penstock.types import Array

driver: Final = import_module("cuda.bindings.driver")


class TensorMemory:
    """By tensor's name: room on the GPU, which stays where it is until more is asked for; and pinned room."""

    def __init__(self, device: Any, stream: Any, on_move: Callable[[], None]) -> None:
        """`on_move`: called before room is laid out elsewhere, for what holds its address."""
        self._device: Final = device
        self._stream: Final = stream
        self._on_move: Final = on_move
        self._pinned: Final = host_memory()
        self._there: Final[dict[str, Any]] = {}
        self._here: Final[dict[str, Array]] = {}

    def address(self, name: str, nbytes: int) -> int:
        """Where that many bytes of the tensor lie on the GPU. Raises OutOfDeviceMemory."""
        held = self._there.get(name)
        if held is not None and held.size >= nbytes:
            return int(held.handle)
        if held is not None:
            self._on_move()
            del self._there[name]
            held.close(self._stream)
        try:
            # an address even where there is nothing: TensorRT refuses null
            made = self._device.allocate(max(nbytes, 1), stream=self._stream)
        except Exception as error:
            if is_out_of_device_memory(error):
                raise OutOfDeviceMemory(f"{nbytes} bytes for {name!r}: {error}") from error
            raise
        self._there[name] = made
        return int(made.handle)

    def upload(self, name: str, array: Array) -> int:
        """Queue a copy onto the GPU; the array must stay until the stream is waited for. Returns where it will lie."""
        at = self.address(name, array.nbytes)
        if array.nbytes:
            _check(
                driver.cuMemcpyHtoDAsync(at, array.ctypes.data, array.nbytes, self._stream.handle)
            )
        return at

    def download(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], reuse: bool
    ) -> Array:
        """Queue a copy of the tensor to an array. `reuse`: it may lie where the one before did."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        room = self._room(name, nbytes) if reuse else np.empty(nbytes, np.uint8)
        if nbytes:
            at = int(self._there[name].handle)
            _check(driver.cuMemcpyDtoHAsync(room.ctypes.data, at, nbytes, self._stream.handle))
        return room[:nbytes].view(dtype).reshape(shape)

    def close(self) -> None:
        """Give all of it back."""
        for held in self._there.values():
            held.close(self._stream)
        self._there.clear()
        self._here.clear()

    def _room(self, name: str, nbytes: int) -> Array:
        held = self._here.get(name)
        if held is None or held.nbytes < nbytes:
            held = self._here[name] = self._pinned(nbytes)
        return held


def _check(result: tuple[Any, ...]) -> None:
    (status,) = result
    if status != driver.CUresult.CUDA_SUCCESS:
        raise CudaFailed(int(status), status.name)
