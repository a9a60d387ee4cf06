"""Which shapes of batches are captured as CUDA graphs: those that come again, up to some number, for each graph holds
memory of the GPU. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from typing import Final

SEEN_BEFORE_CAPTURE: Final = 2
"""A shape that comes once may never come again, and a capture takes as long as several runs."""
MAX_SHAPES_COUNTED: Final = 256


class Way(Enum):
    """How a batch of one shape runs."""

    REPLAY = "replay"
    CAPTURE = "capture"
    PLAIN = "plain"


class Captures:
    """Of one model. A shape is anything that says all that a graph is fixed to."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stopped = False
        self._captured: set[Hashable] = set()
        self._refused: set[Hashable] = set()
        self._seen: OrderedDict[Hashable, int] = OrderedDict()

    def way(self, shape: Hashable) -> Way:
        """How it is to run now. CAPTURE is said again until `done` or `failed` is called."""
        if shape in self._captured:
            return Way.REPLAY
        full = self._stopped or len(self._captured) >= self._limit
        if full or shape in self._refused:
            return Way.PLAIN
        seen = self._seen.pop(shape, 0) + 1
        self._seen[shape] = seen
        if len(self._seen) > MAX_SHAPES_COUNTED:
            self._seen.popitem(last=False)
        return Way.CAPTURE if seen >= SEEN_BEFORE_CAPTURE else Way.PLAIN

    def done(self, shape: Hashable) -> None:
        """It is captured."""
        self._seen.pop(shape, None)
        self._captured.add(shape)

    def failed(self, shape: Hashable) -> None:
        """It can't be, and is not tried again. Once so many are refused as may be captured, no others are tried."""
        self._seen.pop(shape, None)
        self._refused.add(shape)
        if len(self._refused) >= self._limit:
            self._stopped = True

    def forget(self) -> None:
        """What was captured is gone. It may be captured again when it comes again, where captures were not stopped."""
        self._captured.clear()

    def stop(self) -> None:
        """Nothing is captured any more; what was stays."""
        self._stopped = True
