"""Requests of decoupled models from when a worker gets them until their final responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from penstock.workers.message import Message
from penstock.workers.request import PendingRequest
from penstock.workers.streams import WINDOW_BYTES, WINDOW_RESPONSES
from penstock.workers.worker_commands import Cancel, Taken
from penstock.workers.worker_events import Executed

TELL_RESPONSES: Final = WINDOW_RESPONSES // 2
TELL_BYTES: Final = WINDOW_BYTES // 2
"""What was taken is told only when it is that much: a worker that waits has twice as much on its way."""


class OpenRequest:
    """What the gateway knows of one request's responses."""

    __slots__ = (
        "_batch",
        "_index",
        "_tell",
        "_untold_bytes",
        "_untold_responses",
        "ended",
        "failed",
        "output_ns",
        "request",
        "responses",
        "total_ns",
    )

    def __init__(
        self, request: PendingRequest, batch: int, index: int, tell: Callable[[Message], None]
    ) -> None:
        self.request = request
        self._batch = batch
        self._index = index
        self._tell = tell
        self._untold_responses = 0
        self._untold_bytes = 0
        self.responses = 0
        """That came."""
        self.failed = False
        """An error was among them."""
        self.ended = False
        """The final one came."""
        self.output_ns = 0
        """What it took the worker to write them, together."""
        self.total_ns: int | None = None
        """From the request's arrival to its end, where that was a success."""

    def taken(self, nbytes: int) -> None:
        """The client has taken a response."""
        self._untold_responses += 1
        self._untold_bytes += nbytes
        if self._untold_responses >= TELL_RESPONSES or self._untold_bytes >= TELL_BYTES:
            self.tell_taken()

    def tell_taken(self) -> None:
        """Tell the worker what was taken."""
        if not self.ended:
            nbytes, self._untold_bytes = self._untold_bytes, 0
            responses, self._untold_responses = self._untold_responses, 0
            self._tell(Taken(self._batch, self._index, responses, nbytes))

    def wake(self) -> None:
        """Have the worker look whether the request has ended."""
        self._tell(Taken(self._batch, self._index, 0, 0))

    def cancel(self) -> None:
        """Tell the worker that nobody waits any more."""
        if not self.ended:
            self._tell(Cancel(self._batch, self._index))


class StreamTimes(NamedTuple):
    """How long a request's responses took together, in nanoseconds."""

    input_ns: int
    infer_ns: int
    output_ns: int


@dataclass(slots=True, eq=False)
class RunningBatch:
    """A batch that a worker has."""

    requests: Sequence[PendingRequest]
    slab_id: int
    started_ns: int
    """When it left the queue."""


@dataclass(slots=True, eq=False)
class StreamingBatch(RunningBatch):
    """A batch of a decoupled model."""

    opened: Sequence[OpenRequest] = field(kw_only=True)
    """One a request."""
    executed: Executed | None = None
    """Set when `execute` is over."""

    @property
    def ended(self) -> bool:
        """Nothing more will come of it."""
        return self.executed is not None and all([each.ended for each in self.opened])
