"""The slots of one instance, each for one sequence, and the two strategies that make batches of what is in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Generic

from penstock.scheduling.batcher import Batcher, BatchPolicy
from penstock.scheduling.gathering import Cost
from penstock.scheduling.sequence import Request, Sequence

Taken = tuple[list[Request], list[Request]]
"""A batch, and those that were met on the way and can't be on time any more."""


@dataclass(frozen=True, slots=True)
class SequencePolicy:
    """What `sequence_batching` of a model's configuration says."""

    slots: int
    """Of each instance."""
    idle_us: int
    """How long a sequence may have no request before it is ended."""
    direct: bool = True
    """False: oldest."""
    minimum_utilization: float = 0.0
    """Direct: share of the slots that must have a request, or else the batch waits for as long as it may."""


class Slots(ABC, Generic[Request]):
    """At most one request of each sequence is offered at a time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._used = 0
        """Slots below this have been held. There may be billions above it."""
        self._vacated: list[int] = []
        """Those of them that are free, as a heap."""
        self.held: dict[int, Sequence[Request]] = {}
        """Slot → the sequence that has it."""

    @property
    def next_free(self) -> int | None:
        """The lowest free slot."""
        if self._vacated:
            return self._vacated[0]
        return self._used if self._used < self._count else None

    def occupy(self, sequence: Sequence[Request]) -> None:
        """Give the lowest free slot to the sequence."""
        if self._vacated:
            sequence.slot = heappop(self._vacated)
        else:
            sequence.slot = self._used
            self._used += 1
        self.held[sequence.slot] = sequence

    def vacate(self, sequence: Sequence[Request]) -> None:
        """Take its slot back."""
        del self.held[sequence.slot]
        heappush(self._vacated, sequence.slot)
        sequence.instance, sequence.slot = None, -1

    @abstractmethod
    def offer(self, sequence: Sequence[Request], request: Request, now_us: float) -> None:
        """The sequence's next request may be taken."""

    @abstractmethod
    def retract(self, sequence: Sequence[Request], request: Request) -> None:
        """It may not any more."""

    @abstractmethod
    def take(self, now_us: float, cost: Cost) -> Taken[Request]:
        """The batch that is due, in the order of its rows; empty when none is. Takes back what it returns."""

    @abstractmethod
    def next_due_us(self) -> float | None:
        """When `take` will have something; None when nothing is offered."""


class DirectSlots(Slots[Request]):
    """A row of the batch for each slot: a sequence keeps its row from its start to its end."""

    def __init__(self, policy: SequencePolicy, batch: BatchPolicy, usual: Cost) -> None:
        super().__init__(policy.slots)
        self._max_bytes = batch.max_batch_bytes
        self._delay_us = batch.max_delay_us if policy.minimum_utilization else 0
        self._enough = policy.minimum_utilization * policy.slots
        self._usual = usual
        self._ready: dict[int, Request] = {}

    def offer(self, sequence: Sequence[Request], request: Request, now_us: float) -> None:
        """As the base class says."""
        self._ready[sequence.slot] = request

    def retract(self, sequence: Sequence[Request], request: Request) -> None:
        """As the base class says."""
        self._ready.pop(sequence.slot, None)

    def take(self, now_us: float, cost: Cost) -> Taken[Request]:
        """As the base class says. The batch is of the oldest request's shape; other slots wait for the next one."""
        due_us = self.next_due_us()
        if due_us is None or now_us < due_us:
            return [], []
        late = [r for r in self._ready.values() if now_us + cost(r.rows) > r.deadline_us]
        self._ready = {slot: r for slot, r in self._ready.items() if r not in late}
        if not self._ready:
            return [], late
        by_age = sorted(self._ready.items(), key=lambda item: item[1].arrived_ns)
        shape, nbytes = by_age[0][1].shape_key, 0
        chosen: list[int] = []
        for slot, request in by_age:
            nbytes += request.nbytes
            if chosen and nbytes > self._max_bytes:
                break
            if request.shape_key == shape:
                chosen.append(slot)
        return [self._ready.pop(slot) for slot in sorted(chosen)], late

    def next_due_us(self) -> float | None:
        """As the base class says."""
        if not self._ready:
            return None
        if not self._delay_us or len(self._ready) >= self._enough:
            return 0.0
        oldest_us = min(request.arrived_ns for request in self._ready.values()) / 1000
        tightest_us = min(request.deadline_us for request in self._ready.values())
        if tightest_us == inf:
            return oldest_us + self._delay_us
        return min(oldest_us + self._delay_us, tightest_us - 2 * self._usual(len(self._ready)))


class OldestSlots(Slots[Request]):
    """Slots only say which sequences may take part; batches are made of them as of any requests."""

    def __init__(
        self,
        model: str,
        policy: SequencePolicy,
        batch: BatchPolicy,
        weight_of: Callable[[str], float],
        usual: Cost,
    ) -> None:
        super().__init__(policy.slots)
        self._batcher = Batcher[Request](model, batch, weight_of, usual)

    def offer(self, sequence: Sequence[Request], request: Request, now_us: float) -> None:
        """As the base class says."""
        self._batcher.add(request, now_us)

    def retract(self, sequence: Sequence[Request], request: Request) -> None:
        """As the base class says."""
        self._batcher.cancel(request)

    def take(self, now_us: float, cost: Cost) -> Taken[Request]:
        """As the base class says."""
        return self._batcher.take(now_us, cost)

    def next_due_us(self) -> float | None:
        """As the base class says."""
        return self._batcher.next_due_us()
