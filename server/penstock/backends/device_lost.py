"""CUDA errors that a process does not survive: after one of these, each of its calls to the GPU fails with the same.

What NVIDIA's reference says of each of them: the process is in an inconsistent state, and "must be terminated and
relaunched". So a worker ends by them, as if it had crashed, and its supervisor starts another. Running out of memory is
none of them (`device_memory.py`), and neither is what a model raises of its own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

EXIT_CODE: Final = 75
"""Of a worker that ends by one; no other process of ours does."""


class Sticky(NamedTuple):
    """An error, as CUDA's libraries write it."""

    runtime: str
    """Name in the CUDA runtime."""
    driver: str
    """Name in the driver's interface."""
    text: str
    """What `cudaGetErrorString` says, and torch and TensorRT repeat."""


STICKY: Final[Mapping[int, Sticky]] = MappingProxyType(
    {
        214: Sticky(
            "cudaErrorECCUncorrectable",
            "CUDA_ERROR_ECC_UNCORRECTABLE",
            "uncorrectable ECC error encountered",
        ),
        220: Sticky(
            "cudaErrorNvlinkUncorrectable",
            "CUDA_ERROR_NVLINK_UNCORRECTABLE",
            "uncorrectable NVLink error detected during the execution",
        ),
        226: Sticky(
            "cudaErrorContained",
            "CUDA_ERROR_CONTAINED",
            "Invalid access of peer GPU memory over nvlink or a hardware error",
        ),
        700: Sticky(
            "cudaErrorIllegalAddress",
            "CUDA_ERROR_ILLEGAL_ADDRESS",
            "an illegal memory access was encountered",
        ),
        702: Sticky(
            "cudaErrorLaunchTimeout",
            "CUDA_ERROR_LAUNCH_TIMEOUT",
            "the launch timed out and was terminated",
        ),
        710: Sticky("cudaErrorAssert", "CUDA_ERROR_ASSERT", "device-side assert triggered"),
        714: Sticky(
            "cudaErrorHardwareStackError", "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error"
        ),
        715: Sticky(
            "cudaErrorIllegalInstruction",
            "CUDA_ERROR_ILLEGAL_INSTRUCTION",
            "an illegal instruction was encountered",
        ),
        716: Sticky(
            "cudaErrorMisalignedAddress", "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"
        ),
        717: Sticky(
            "cudaErrorInvalidAddressSpace",
            "CUDA_ERROR_INVALID_ADDRESS_SPACE",
            "operation not supported on global/shared address space",
        ),
        718: Sticky("cudaErrorInvalidPc", "CUDA_ERROR_INVALID_PC", "invalid program counter"),
        719: Sticky(
            "cudaErrorLaunchFailure", "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"
        ),
        721: Sticky(
            "cudaErrorTensorMemoryLeak",
            "CUDA_ERROR_TENSOR_MEMORY_LEAK",
            "tensor memory not completely freed",
        ),
        810: Sticky(
            "cudaErrorMpsClientTerminated",
            "CUDA_ERROR_MPS_CLIENT_TERMINATED",
            "the MPS client has been terminated by the server",
        ),
        911: Sticky(
            "cudaErrorExternalDevice",
            "CUDA_ERROR_EXTERNAL_DEVICE",
            "an async error has occured in external entity outside of CUDA",
        ),
    }
)
"""By code, which is the same in the runtime and the driver."""

_BY_NAME: Final = {
    name: code for code, each in STICKY.items() for name in (each.runtime, each.driver)
}
_TEXTS: Final = "|".join(re.escape(each.text) for each in STICKY.values())
_OF_TORCH: Final = re.compile(rf"(?:[\w.]+: )?CUDA error: (?:{_TEXTS})")
_OF_TORCH_SCRIPT: Final = re.compile(rf"^(?:[\w.]+: )?CUDA error: (?:{_TEXTS})", re.MULTILINE)
_SCRIPT: Final = "The following operation failed in the TorchScript interpreter."
_OF_ONNX_RUNTIME: Final = re.compile(r"\bCUDA failure (\d+): ")
_OF_TENSORRT: Final = re.compile(rf"\bCuda (?:Runtime|Driver) \((?:{_TEXTS})\)", re.IGNORECASE)
_NAMED: Final = re.compile(r"\b(?:CUDA_ERROR_[A-Z_]+|cudaError[A-Za-z]+)\b")

_BY_NAMES: Final = frozenset(("cuda", "cupy", "cupy_backends", "numba"))
"""Packages whose exceptions say an error's name."""


class DeviceLost(BaseException):
    """This process can't use its GPU any more, and has to end. No Exception: what handles those of models, and would
    answer the next request with the same error, must not hold it up."""


class CudaFailed(Exception):
    """What CUDA's driver says to a call of ours."""

    def __init__(self, code: int, name: str) -> None:
        super().__init__(name)
        self.code: Final = code


def check_device(error: BaseException) -> None:
    """Raises DeviceLost where that is what an exception comes of."""
    if reason := lost_reason(error):
        raise DeviceLost(reason) from error


def check_said(text: str) -> None:
    """Raises DeviceLost where TensorRT, whose calls raise nothing, has logged one of these errors."""
    if _OF_TENSORRT.search(text):
        raise DeviceLost(text)


def lost_reason(error: BaseException) -> str:
    """What an exception, or one that it was raised for, says of such an error; empty: it is none.

    A text counts only where its exception is of a library that writes it, and where that library writes it: a model may
    raise what a client has sent.
    """
    for each in _with_causes(error):
        if _is_lost(each):
            return " ".join(str(each).split())
    return ""


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """As Python shows them: the cause, or what was being handled."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, DeviceLost):
        return True
    if isinstance(error, CudaFailed):
        return error.code in STICKY
    package = type(error).__module__.partition(".")[0]
    # before AcceleratorError there was no class of its own, and TorchScript has none
    if package == "torch" or (type(error) is RuntimeError and _torch_uses_cuda()):
        return _torch_says(error, str(error))
    if package == "onnxruntime":
        found = _OF_ONNX_RUNTIME.search(str(error))
        return found is not None and int(found[1]) in STICKY
    if package in _BY_NAMES:
        named = _NAMED.search(str(error))
        return named is not None and named[0] in _BY_NAME
    return False


def _torch_uses_cuda() -> bool:
    """Where it doesn't, a RuntimeError is the model's own, whatever it says."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()


def _torch_says(error: Any, text: str) -> bool:
    if getattr(error, "error_code", None) in STICKY or _OF_TORCH.match(text):
        return True
    return text.startswith(_SCRIPT) and _OF_TORCH_SCRIPT.search(text) is not None
