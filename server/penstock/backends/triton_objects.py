"""Tensors, errors and the logger of Triton's `triton_python_backend_utils`, by the names and calls that models use."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, Protocol, cast

import numpy as np

from penstock.errors import (
    AlreadyExists,
    Cancelled,
    InvalidRequest,
    ModelFailed,
    NotFound,
    PenstockError,
    Unavailable,
    UnknownError,
    Unsupported,
)
from penstock.types import DATATYPES, Array

_logger = logging.getLogger("penstock.model")

TRITON_TYPE_NUMBERS: Final[Mapping[str, int]] = {
    "BOOL": 1,
    "UINT8": 2,
    "UINT16": 3,
    "UINT32": 4,
    "UINT64": 5,
    "INT8": 6,
    "INT16": 7,
    "INT32": 8,
    "INT64": 9,
    "FP16": 10,
    "FP32": 11,
    "FP64": 12,
    "BYTES": 13,
    "BF16": 14,
}
"""Protocol datatype → number in TRITONSERVER_DataType."""


class TritonModelException(Exception):
    """What Triton's calls raise, and models may."""


class Tensor:
    """A named NumPy array."""

    __slots__ = ("_array", "_name")

    def __init__(self, name: str, array: Array) -> None:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"tensor {name!r} needs a numpy.ndarray, got {type(array).__name__}")
        self._name = name
        self._array = array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Array:
        return self._array

    def shape(self) -> list[int]:
        return list(self._array.shape)

    def is_cpu(self) -> bool:
        return True

    def triton_dtype(self) -> int:
        """The number in TRITONSERVER_DataType. Raises TritonModelException where there is none."""
        if self._array.dtype.kind in "SU":
            return TRITON_TYPE_NUMBERS["BYTES"]
        datatype = DATATYPES.get(self._array.dtype)
        if datatype is None:
            raise TritonModelException(f"tensor {self._name!r} has dtype {self._array.dtype}")
        return TRITON_TYPE_NUMBERS[datatype]

    def to_dlpack(self) -> Any:
        """A DLPack capsule of the array; of a copy where the array is read-only, which DLPack can't say."""
        return self.__dlpack__()

    def __dlpack__(self, **options: Any) -> Any:
        array = self._array if self._array.flags.writeable else self._array.copy()
        try:
            return array.__dlpack__(**options)
        except (BufferError, TypeError) as error:
            raise TritonModelException(
                f"tensor {self._name!r} has no DLPack form: {error}"
            ) from error

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, device = self._array.__dlpack_device__()
        return int(kind), int(device)

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> Tensor:
        """A tensor over the memory of another library's, or of a capsule. Raises TritonModelException off the CPU."""
        source = tensor if hasattr(tensor, "__dlpack__") else _Capsule(tensor)
        try:
            return Tensor(name, np.from_dlpack(cast(_SupportsDlpack, source)))
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise TritonModelException(
                f"tensor {name!r} can't be taken over from DLPack: {error}"
                " (expected a tensor in CPU memory, of a dtype that NumPy has)"
            ) from error


class TritonErrorCode(IntEnum):
    """TRITONSERVER_Error_Code."""

    UNKNOWN = 0
    INTERNAL = 1
    NOT_FOUND = 2
    INVALID_ARG = 3
    UNAVAILABLE = 4
    UNSUPPORTED = 5
    ALREADY_EXISTS = 6
    CANCELLED = 7


class TritonError:
    """Why a request failed. Clients see the message, and the code as a status."""

    __slots__ = ("_code", "_message")

    UNKNOWN: Final = TritonErrorCode.UNKNOWN
    INTERNAL: Final = TritonErrorCode.INTERNAL
    NOT_FOUND: Final = TritonErrorCode.NOT_FOUND
    INVALID_ARG: Final = TritonErrorCode.INVALID_ARG
    UNAVAILABLE: Final = TritonErrorCode.UNAVAILABLE
    UNSUPPORTED: Final = TritonErrorCode.UNSUPPORTED
    ALREADY_EXISTS: Final = TritonErrorCode.ALREADY_EXISTS
    CANCELLED: Final = TritonErrorCode.CANCELLED

    def __init__(self, message: str, code: TritonErrorCode = TritonErrorCode.INTERNAL) -> None:
        self._message = message
        self._code = code

    def message(self) -> str:
        return self._message

    def code(self) -> TritonErrorCode:
        return self._code

    def __str__(self) -> str:
        return self._message


_ERRORS: Final[Mapping[int, type[PenstockError]]] = {
    TritonErrorCode.UNKNOWN: UnknownError,
    TritonErrorCode.INTERNAL: ModelFailed,
    TritonErrorCode.NOT_FOUND: NotFound,
    TritonErrorCode.INVALID_ARG: InvalidRequest,
    TritonErrorCode.UNAVAILABLE: Unavailable,
    TritonErrorCode.UNSUPPORTED: Unsupported,
    TritonErrorCode.ALREADY_EXISTS: AlreadyExists,
    TritonErrorCode.CANCELLED: Cancelled,
}


def error_of(error: object) -> PenstockError:
    """The error that a model put into a response. What is no TritonError is told by its text."""
    code = error.code() if isinstance(error, TritonError) else TritonErrorCode.INTERNAL
    kind = _ERRORS.get(code, ModelFailed) if isinstance(code, int) else ModelFailed
    return kind(str(error))


def triton_error(error: PenstockError) -> TritonError:
    """The inverse: what a model sees of another one's error."""
    kinds = ((code, kind) for code, kind in _ERRORS.items() if isinstance(error, kind))
    code = next((code for code, kind in kinds if kind is not ModelFailed), TritonErrorCode.INTERNAL)
    return TritonError(str(error), TritonErrorCode(code))


class TritonLogLevel(IntEnum):
    """Triton's levels, with the numbers that Python's logging has for them."""

    INFO = logging.INFO
    WARNING = logging.WARNING
    ERROR = logging.ERROR
    VERBOSE = logging.DEBUG


class Logger:
    """Triton's logger, on top of Python's logger `penstock.model`."""

    LogLevel: Final = TritonLogLevel
    INFO: Final = TritonLogLevel.INFO
    WARNING: Final = TritonLogLevel.WARNING
    ERROR: Final = TritonLogLevel.ERROR
    VERBOSE: Final = TritonLogLevel.VERBOSE

    @staticmethod
    def log(message: str, level: int = TritonLogLevel.INFO) -> None:
        _logger.log(int(level), "%s", message)

    @staticmethod
    def log_info(message: str) -> None:
        _logger.info("%s", message)

    @staticmethod
    def log_warn(message: str) -> None:
        _logger.warning("%s", message)

    @staticmethod
    def log_error(message: str) -> None:
        _logger.error("%s", message)

    @staticmethod
    def log_verbose(message: str) -> None:
        _logger.debug("%s", message)


class _SupportsDlpack(Protocol):
    def __dlpack__(self, /, *, stream: None = ...) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


class _Capsule:
    """What NumPy takes a bare DLPack capsule from. A capsule doesn't tell its device: it is taken to be the CPU."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)
