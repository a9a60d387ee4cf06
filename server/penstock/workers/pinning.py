"""Slabs as pinned memory, in workers on GPUs: from pages that stay where they are, a GPU copies without the CPU's help,
and while it computes."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

log = logging.getLogger(__name__)

CUDART: Final = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
DEFAULT_FLAGS: Final = 0
"""cudaHostRegisterDefault."""


class PinningFailed(Exception):
    """The memory can't be pinned; the text says why."""


class Registrar(Protocol):
    """What pins memory. Both raise PinningFailed."""

    def register(self, address: int, nbytes: int) -> None:
        """Pin these bytes, which are mapped."""
        ...

    def unregister(self, address: int) -> None:
        """They are pinned no more, and may be unmapped."""
        ...


class Pinning:
    """Pins the slabs of one worker for as long as that works. What can't be pinned is copied all the same, slower."""

    def __init__(self, find: Callable[[], Registrar]) -> None:
        """`find` raises PinningFailed where nothing pins."""
        self._find = find
        self._registrar: Registrar | None = None
        self._given_up = False

    def follow(self) -> Callable[[memoryview], None]:
        """For one slab, which tells of each mapping before it drops the one before, and of its end with no bytes."""
        pinned = 0

        def mapped(view: memoryview) -> None:
            nonlocal pinned
            if pinned:
                self._unregister(pinned)
            pinned = self._register(view) if view.nbytes else 0

        return mapped

    def _register(self, view: memoryview) -> int:
        """The address; 0: it is not pinned."""
        if self._given_up:
            return 0
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))
        try:
            if self._registrar is None:
                self._registrar = self._find()
            self._registrar.register(address, view.nbytes)
        except PinningFailed as error:
            self._given_up = True
            log.warning("slabs are not pinned, so copies to the GPU take longer: %s", error)
            return 0
        return address

    def _unregister(self, address: int) -> None:
        assert self._registrar is not None, "it has registered the address"
        try:
            self._registrar.unregister(address)
        except PinningFailed as error:
            log.debug("a slab could not be unpinned: %s", error)


class CudaRegistrar:
    """By the functions of the CUDA runtime, in whatever library they are."""

    def __init__(
        self,
        host_register: Callable[[int, int, int], Any],
        host_unregister: Callable[[int], Any],
        forget_error: Callable[[], object],
    ) -> None:
        """Both return an error code, alone or in a tuple; 0 is success. `forget_error` takes it out of the runtime,
        which else keeps it for whoever asks next: torch, after the next kernel, as if that had failed."""
        self._host_register = host_register
        self._host_unregister = host_unregister
        self._forget_error = forget_error

    def register(self, address: int, nbytes: int) -> None:
        """As Registrar."""
        self._check("cudaHostRegister", self._host_register(address, nbytes, DEFAULT_FLAGS))

    def unregister(self, address: int) -> None:
        """As Registrar."""
        self._check("cudaHostUnregister", self._host_unregister(address))

    def _check(self, function: str, answer: Any) -> None:
        code = answer[0] if isinstance(answer, tuple) else answer
        if int(code):
            self._forget_error()
            raise PinningFailed(f"{function} says {code!r}")


def cuda_registrar() -> Registrar:
    """Of the CUDA runtime that is at hand: torch's where the model has brought it, else cuda.bindings, else the library
    alone. Raises PinningFailed where there is none."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        cudart = torch.cuda.cudart()
        # torch shows no cudaGetLastError
        return CudaRegistrar(
            cudart.cudaHostRegister, cudart.cudaHostUnregister, forget_in_mapped_runtimes
        )
    try:
        runtime: Any = import_module("cuda.bindings.runtime")
    except ImportError:
        return _by_ctypes()
    return CudaRegistrar(
        runtime.cudaHostRegister, runtime.cudaHostUnregister, runtime.cudaGetLastError
    )


def forget_in_mapped_runtimes(maps: Path = Path("/proc/self/maps")) -> None:
    """Take the last error out of each CUDA runtime that this process has mapped: each has its own."""
    paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "/" in line}
    for path in sorted(paths):
        # libcudart.so.12, and in torch's wheels libcudart-HASH.so.12
        if Path(path).name.startswith("libcudart"):
            ctypes.CDLL(path).cudaGetLastError()


def _by_ctypes() -> Registrar:
    for name in CUDART:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        register, unregister = library.cudaHostRegister, library.cudaHostUnregister
        register.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
        unregister.argtypes = (ctypes.c_void_p,)
        return CudaRegistrar(register, unregister, library.cudaGetLastError)
    raise PinningFailed(
        f"there is no CUDA runtime: neither torch, nor the package cuda-bindings, nor {CUDART[0]}"
    )
