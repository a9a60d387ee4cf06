"""How a process is asked to stop: SIGTERM and Ctrl-C only say so, the loop stops after a checkpoint."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


class StopSignal:
    """Remembers that it was asked."""

    def __init__(self) -> None:
        self.received = False

    def listen(self) -> None:
        """From the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def stop_with_launcher() -> None:
    """The kernel asks this process to stop when the one that started it is killed."""
    if sys.platform == "linux":
        launcher = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != launcher:
            os.kill(os.getpid(), signal.SIGTERM)
