"""A GPU, with the kernels that were loaded onto it."""

# cuda.core and cuda.bindings are compiled, and have no stubs
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

try:
    from cuda.core import Device, Kernel, LaunchConfig, ObjectCode, Stream, launch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}; expected the packages of `pip install 'penstock[cuda]'`", name=error.name
    ) from error

from penstock_kernels.cuda.compiler import compile_source

BLOCK_THREADS: Final = 256


class NoGpu(RuntimeError):
    """There is none that can be used."""


class Cuda:
    """One GPU and one of its streams. All operations are queued on that stream, and not waited for."""

    def __init__(self, ordinal: int = 0, cache: Path | None = None, stream: Any = None) -> None:
        """`ordinal`: as CUDA counts in this process. `stream`: anything with `__cuda_stream__`, such as torch's; None:
        one of its own. `cache`: where compiled sources are kept. Raises NoGpu."""
        self.device: Final = _current(ordinal)
        self.stream: Final[Stream] = self.device.create_stream(stream)
        self.arch: Final = f"sm_{self.device.arch}"
        self._cache: Final = cache
        self._codes: Final[dict[str, ObjectCode]] = {}
        self._kernels: Final[dict[tuple[str, str], Kernel]] = {}

    def run(
        self, source: str, kernel: str, blocks: int, *arguments: Any, threads: int = BLOCK_THREADS
    ) -> None:
        """Queue a kernel of `source`.cu. Arguments: pointers as int, NumPy scalars. No blocks: nothing is queued."""
        if blocks:
            config = LaunchConfig(grid=blocks, block=threads)
            launch(self.stream, config, self._kernel(source, kernel), *arguments)

    def wait(self) -> None:
        """Until all that was queued is done."""
        self.stream.sync()

    def close(self) -> None:
        """Give the stream back."""
        self.stream.close()

    def _kernel(self, source: str, name: str) -> Kernel:
        found = self._kernels.get((source, name))
        if found is None:
            if source not in self._codes:
                code = compile_source(source, self.arch, self._cache)
                self._codes[source] = ObjectCode.from_cubin(code)
            found = self._codes[source].get_kernel(name)
            self._kernels[source, name] = found
        return found


def _current(ordinal: int) -> Device:
    """Raises NoGpu. What CUDA itself says names neither what was asked for nor what is missing."""
    try:
        device = Device(ordinal)
        device.set_current()
    # of the driver that is not there, of one too old, and of numbers: each has a class of its own
    except Exception as error:
        why = " ".join(str(error).split())
        raise NoGpu(
            f"GPU {ordinal} can't be used ({why}); expected an NVIDIA GPU of that number, with its driver"
        ) from error
    return device
