"""How a process is asked to stop: SIGTERM and Ctrl-C only say so, the loop stops after a checkpoint."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

EXIT_STOPPED: Final = 130
_PR_SET_PDEATHSIG: Final = 1


class StopSignal:
    """Remembers that it was asked. Who asks twice does not want to wait for a checkpoint."""

    def __init__(self, asked_elsewhere: Callable[[], bool] = lambda: False) -> None:
        self.received = False
        self._asked_elsewhere = asked_elsewhere

    def listen(self) -> None:
        """From the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received or self._asked_elsewhere():
            os._exit(EXIT_STOPPED)
        self.received = True


def stop_with_launcher() -> None:
    """The kernel asks this process to stop when the one that started it is killed."""
    if sys.platform == "linux":
        launcher = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != launcher:
            os.kill(os.getpid(), signal.SIGTERM)
