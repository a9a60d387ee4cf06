"""Sequences that wait for a slot, and those that ended otherwise than by their END."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic

from penstock.errors import InvalidRequest, PenstockError, Unavailable
from penstock.scheduling.sequence import Request, Sequence
from penstock.types import SequenceKey

MAX_REMEMBERED: Final = 4096
"""Sequences whose end is remembered, to be told to clients that go on with them."""


class Ending(enum.Enum):
    """Values of the label `reason` of `penstock_ended_sequences`."""

    COMPLETED = "completed"
    """With its END, or with a request that was withdrawn."""
    IDLE = "idle"
    """No request came for too long."""
    LOST = "lost"
    """The instance that had its state is gone."""


@dataclass(slots=True)
class SequenceCounts:
    """What a model's sequences do and did."""

    active: int = 0
    """Have a slot."""
    backlog: int = 0
    """Wait for one."""
    ended: dict[Ending, int] = field(default_factory=lambda: dict.fromkeys(Ending, 0))


class Backlog(Generic[Request]):
    """Who gets the next slot: the tenant that has the fewest for its weight, and of its sequences the oldest."""

    def __init__(self, weight_of: Callable[[str], float]) -> None:
        self._weight_of = weight_of
        self._tenants: dict[str, dict[Sequence[Request], None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sequence[Request]]:
        for sequences in self._tenants.values():
            yield from sequences

    def add(self, sequence: Sequence[Request]) -> None:
        """It waits from now on; its number says behind whom."""
        sequences = self._tenants.setdefault(sequence.tenant, {})
        is_last = not sequences or next(reversed(sequences)).number < sequence.number
        sequences[sequence] = None
        self._count += 1
        if not is_last:
            # it had a slot before
            in_order = sorted(sequences, key=lambda each: each.number)
            self._tenants[sequence.tenant] = dict.fromkeys(in_order)

    def remove(self, sequence: Sequence[Request]) -> None:
        """It does not wait any more."""
        sequences = self._tenants[sequence.tenant]
        del sequences[sequence]
        self._count -= 1
        if not sequences:
            del self._tenants[sequence.tenant]

    def pop(self, held: Mapping[str, int]) -> Sequence[Request]:
        """Whose turn it is; `held`: tenant → slots that it has."""

        def place(first: Sequence[Request]) -> tuple[float, int]:
            return held.get(first.tenant, 0) / self._weight_of(first.tenant), first.number

        chosen = min((next(iter(each)) for each in self._tenants.values()), key=place)
        self.remove(chosen)
        return chosen


class Endings:
    """What clients are told that go on with a sequence which is not there."""

    def __init__(self, model: str, idle_us: int) -> None:
        self._model = model
        self._idle_s = idle_us / 1e6
        self._known: dict[SequenceKey, str | None] = {}

    def idle(self, key: SequenceKey) -> None:
        """It was idle for too long."""
        self._remember(key, None)

    def lost(self, key: SequenceKey, reason: str) -> Unavailable:
        """Its state is gone. Returns what those hear that were under way."""
        self._remember(key, reason)
        return self.loss(key, reason)

    def loss(self, key: SequenceKey, reason: str) -> Unavailable:
        """The error of a request whose sequence is lost."""
        return Unavailable(
            f"sequence {key[1]} of model '{self._model}' was lost: {reason}; start it again"
        )

    def forget(self, key: SequenceKey) -> None:
        """One of that id begins."""
        self._known.pop(key, None)

    def error(self, key: SequenceKey) -> PenstockError:
        """The error of a request that goes on with it. Triton's text, where it says the same."""
        reason = self._known.get(key, "")
        if reason:
            return self.loss(key, reason)
        text = (
            f"inference request for sequence {key[1]} to model '{self._model}' must specify the START flag on"
            " the first request of the sequence"
        )
        if reason is None:
            text += f": the one before was idle for longer than {self._idle_s:g} s and has ended"
        return InvalidRequest(text)

    def adopt(self, other: Endings) -> None:
        """Those of a model that this one succeeds."""
        for key, reason in other._known.items():
            self._remember(key, reason)

    def _remember(self, key: SequenceKey, reason: str | None) -> None:
        self._known.pop(key, None)
        self._known[key] = reason
        if len(self._known) > MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
