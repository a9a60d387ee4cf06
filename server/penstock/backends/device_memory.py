"""A batch that does not fit into a GPU's memory: its exception, and how those of the libraries are told from others."""

from __future__ import annotations

from typing import Final

SIGNS: Final = (
    "out of memory",  # CUDA, torch, TensorRT
    "OutOfMemory",  # TensorRT's error codes
    "cudaErrorMemoryAllocation",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Failed to allocate memory for requested buffer",  # onnxruntime's arena
)
"""What libraries write into exceptions that have no type of their own."""


class OutOfDeviceMemory(Exception):
    """Raised by a backend's call where the GPU's memory does not hold the batch. `run_isolated` then runs it in halves.

    Raise it once what the failed call has taken is given back: the halves need that room.
    """


def is_out_of_device_memory(error: BaseException) -> bool:
    """Whether a library's exception says so, by its type's name (torch.OutOfMemoryError) or its text. Not Python's own
    MemoryError: that is of the machine's memory, which halves don't help."""
    if isinstance(error, OutOfDeviceMemory):
        return True
    if isinstance(error, MemoryError):
        return False
    if type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return any(sign in text for sign in SIGNS)
