"""A pool of a decoupled model, over instances whose workers the test plays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from penstock.errors import PenstockError
from penstock.repository.pool import Pool
from penstock.repository.streaming_pool import StreamingPool, StreamingSequencePool
from penstock.repository.turns import Turns
from penstock.workers.request import Part, PendingRequest
from pool_bench import Bench
from sequence_bench import SequenceBench


class Parts:
    """A sink that keeps what it is told in short: values, `final`, an error's class, the model's parameters."""

    def __init__(self) -> None:
        self.of: dict[str, list[Any]] = defaultdict(list)
        """By the request's id."""
        self.untaken: list[Callable[[], None]] = []
        self.fail = False

    def part(self, request: PendingRequest, part: Part) -> None:
        """As Sink."""
        if self.fail:
            raise ZeroDivisionError("in the sink")
        told = self.of[request.id]
        if isinstance(part.outputs, PenstockError):
            told.append(type(part.outputs).__name__)
        elif part.outputs is not None:
            for output in part.outputs:
                told.append(float(np.frombuffer(output.data, np.float32)[0]))
        if part.parameters:
            assert part.parameters == request.response_parameters
            told.append(dict(part.parameters))
        if part.final:
            told.append("final")
        self.untaken.append(part.taken)

    def take(self, count: int) -> None:
        """The transport takes so many."""
        for _ in range(count):
            self.untaken.pop(0)()


class StreamingBench(Bench):
    """Its requests have a sink, unless the test takes it away."""

    def __init__(self, **policy: Any) -> None:
        self.parts = Parts()
        self.with_sink = True
        super().__init__(**policy)

    def _new_pool(self, turns: Turns | None) -> Pool:
        return StreamingPool(self.policy, self.statistics, self._start, self._changed, turns)

    def _prepare(self, request: PendingRequest) -> None:
        if self.with_sink:
            request.sink = self.parts


class StreamingSequenceBench(SequenceBench):
    """The same, of a stateful model."""

    def __init__(self, **policy: Any) -> None:
        self.parts = Parts()
        super().__init__(**policy)
        self.sequences = StreamingSequencePool(
            self.policy, self.statistics, self._start, self._changed
        )
        self.pool = self.sequences

    def _prepare(self, request: PendingRequest) -> None:
        request.sink = self.parts
