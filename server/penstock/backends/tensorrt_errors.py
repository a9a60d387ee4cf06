"""Why TensorRT doesn't run a model, and what TensorRT itself says of it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from penstock.backends.device_lost import check_said
from penstock.backends.device_memory import OutOfDeviceMemory, is_out_of_device_memory
from penstock.errors import ModelFailed

log = logging.getLogger("penstock.backends.tensorrt")

_LAST: Final = 4
"""Messages that a reason is made of: the first error is the cause, those after it follow from it."""


class TensorRtUnusable(Exception):
    """TensorRT can't run this model here, and that is the reason: another runtime may."""


class Messages:
    """What TensorRT logs, kept for reasons: its calls only return None or False."""

    def __init__(self) -> None:
        self._errors: Final[deque[str]] = deque(maxlen=_LAST)

    def take(self, level: int, text: str) -> None:
        """Log it, and keep it if it is an error."""
        line = " ".join(text.split())
        if level >= logging.ERROR:
            self._errors.append(line)
            level = logging.WARNING  # what it comes to is said by who called
        log.log(level, "%s", line)

    def reason(self, otherwise: str) -> str:
        """What went wrong, and forget it."""
        text = "; ".join(self._errors) or otherwise
        self._errors.clear()
        return text


def failure(messages: Messages, otherwise: str) -> Exception:
    """Of a call that has failed, by what TensorRT has logged: OutOfDeviceMemory, or ModelFailed. Raises DeviceLost."""
    reason = messages.reason(otherwise)
    check_said(reason)
    error = ModelFailed(f"TensorRT: {reason}")
    return OutOfDeviceMemory(reason) if is_out_of_device_memory(error) else error


@contextmanager
def telling_why(messages: Messages, otherwise: str) -> Iterator[None]:
    """Around calls whose bindings raise a RuntimeError that says only that they failed. Raises as `failure` says."""
    try:
        yield
    except RuntimeError as error:
        raise failure(messages, otherwise) from error


def make_logger(trt: Any, messages: Messages) -> Any:
    """An `ILogger` of TensorRT's."""
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.INFO,
        trt.ILogger.Severity.INFO: logging.DEBUG,
        trt.ILogger.Severity.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            # as the bindings ask: super() does not do
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            messages.take(levels.get(severity, logging.DEBUG), msg)

    return Logger()
