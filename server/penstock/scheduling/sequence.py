"""One sequence: the requests that a client sent under one correlation id, which run one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from penstock.scheduling.scheduler import Schedulable
from penstock.types import SequenceId, SequenceKey, SequenceTerms, Step


class Sequential(Schedulable, Protocol):
    """A request of a sequence."""

    step: Step
    """Set when it is given to an instance."""

    @property
    def sequence(self) -> SequenceTerms:
        """What it says of its sequence."""
        ...


Request = TypeVar("Request", bound=Sequential)


@dataclass(eq=False, slots=True)
class Entry(Generic[Request]):
    """A request that waits or runs."""

    request: Request
    start: bool
    """The model begins anew with it. So it does with the one behind a START that was withdrawn."""
    last: bool
    """The sequence is over after it. So it is after the one before an END that was withdrawn."""


@dataclass(eq=False, slots=True)
class Sequence(Generic[Request]):
    """All that waits and runs of one id, also where a new sequence of that id began behind the last one's end."""

    key: SequenceKey
    id: SequenceId
    tenant: str
    """Of the request that began it."""
    number: int
    """Order among those that wait for a slot."""
    instance: Hashable = None
    slot: int = -1
    """-1: it waits for one."""
    waiting: deque[Entry[Request]] = field(default_factory=deque)
    running: Entry[Request] | None = None
    offered: Request | None = None
    """The first that waits, once its instance may take it."""
    begun: bool = False
    """Its instance was given a request of it, and so has its state."""
    over: bool = False
    """Its last request, or all of its requests, were withdrawn."""

    @property
    def open(self) -> bool:
        """A request that goes on with it may come."""
        if self.waiting:
            return not self.waiting[-1].last
        if self.running is not None:
            return not self.running.last
        return not self.over

    def add(self, request: Request) -> None:
        """One more, behind all others."""
        terms = request.sequence
        self.waiting.append(Entry(request, terms.start, terms.end))

    def take(self) -> Request:
        """Its first request, which runs from now on."""
        entry = self.running = self.waiting.popleft()
        self.offered = None
        self.begun = True
        request = entry.request
        request.step = Step(self.slot, entry.start, request.sequence.end, self.id)
        return request

    def put_back(self) -> Request:
        """What was taken last did not run, and waits again."""
        entry, self.running = self.running, None
        assert entry is not None, "something was taken"
        self.waiting.appendleft(entry)
        # with its START, what the instance has is of no interest any more
        self.begun = not entry.start
        return entry.request

    def withdraw(self, request: Request) -> None:
        """Take out a request that waits: the sequence goes on without it, and ends where it ended with it."""
        index = next(i for i, entry in enumerate(self.waiting) if entry.request is request)
        entry = self.waiting[index]
        del self.waiting[index]
        if entry.start and not entry.last and index < len(self.waiting):
            # it must not go on from what was before the START
            self.waiting[index].start = True
        elif entry.start or entry.last:
            before = self.waiting[index - 1] if index else self.running
            if before is None:
                self.over = True
            else:
                before.last = True

    def lose(self) -> list[Request]:
        """Its instance is gone, and with it the state. Returns those that can't be run without it; what is left
        begins with a START."""
        lost = []
        if self.running is not None:
            lost.append(self.running.request)
            self.running = None
        while self.begun and self.waiting and not self.waiting[0].start:
            lost.append(self.waiting.popleft().request)
        self.begun = False
        self.over = False
        self.offered = None
        self.instance, self.slot = None, -1
        return lost
