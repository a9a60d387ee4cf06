"""The clients' books: each request is entered when it is sent and closed by its one answer.

They hold what is under way, counts of what is closed, and all that must not be: so they stay small for hours.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

PROBLEMS_KEPT = 200
"""More are counted, but their details are not kept."""


class Kind(StrEnum):
    """What became of a request."""

    OK = "ok"
    QUEUE_FULL = "refused, queue full"
    LATE = "deadline exceeded"
    CRASHED = "worker crashed"
    CANCELLED = "cancelled by the client itself"
    CUT = "connection cut by chaos"
    GARBAGE_REFUSED = "garbage, clearly refused"
    GARBAGE_DROPPED = "garbage, connection closed"
    LOAD_KILLED = "load failed, chaos killed its worker"
    STOPPED = "refused, server stopped"
    LINK_LOST = "CONNECTION LOST WITHOUT OUR DOING"
    SHUT_OUT = "CANCELLED BY THE STOPPING SERVER"

    WRONG = "WRONG ANSWER"
    UNEXPLAINED = "UNEXPLAINED ANSWER"
    DOUBLE = "DOUBLE ANSWER"
    MISSING = "NO ANSWER"


LOUD = frozenset({Kind.LINK_LOST, Kind.SHUT_OUT})
"""Faults of a front that are known: where they are allowed they fail no run, and are shown all the same."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request's end as its client saw it."""

    kind: Kind
    detail: str = ""


@dataclass(slots=True, eq=False)
class Ticket:
    """One request in the books. `id` is also what the server is to echo."""

    id: str
    actor: str
    model: str
    allowed: frozenset[Kind]
    sent_s: float
    """On the books' clock."""
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer, or the lack of one, that nothing explains."""

    ticket: str
    actor: str
    model: str
    kind: Kind
    detail: str
    sent_s: float
    """Since the books were begun."""
    took_s: float


@dataclass(frozen=True, slots=True)
class Balance:
    """What the books say at one moment."""

    counts: dict[tuple[str, str, Kind], int]
    """By actor, model and kind: one for each closed request, and one more for each second answer."""
    open: int
    """Requests without an answer so far."""
    problems: tuple[Problem, ...]
    """The first of them."""
    problem_count: int
    known: tuple[Problem, ...] = ()
    """The first of the LOUD kinds that were allowed."""

    def of_model(self, model: str) -> Counter[Kind]:
        """Counts by kind of all requests to a model."""
        found: Counter[Kind] = Counter()
        for (_, name, kind), count in self.counts.items():
            if name == model:
                found[kind] += count
        return found

    def by_kind(self) -> Counter[Kind]:
        """Counts by kind of all requests."""
        found: Counter[Kind] = Counter()
        for (_, _, kind), count in self.counts.items():
            found[kind] += count
        return found


class Books:
    """Any thread may write in them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began_s = clock()
        self._number = 0
        self._open: dict[str, Ticket] = {}
        self._counts: Counter[tuple[str, str, Kind]] = Counter()
        self._problems: list[Problem] = []
        self._problem_count = 0
        self._known: list[Problem] = []

    def now(self) -> float:
        """Seconds on the books' clock."""
        return self._clock()

    def open(self, actor: str, model: str, allowed: frozenset[Kind]) -> Ticket:
        """Enter a request that is about to be sent, and the ends that it may come to."""
        with self._lock:
            self._number += 1
            ticket = Ticket(f"{actor}-{self._number}", actor, model, allowed, self._clock())
            self._open[ticket.id] = ticket
            return ticket

    def close(self, ticket: Ticket, outcome: Outcome) -> None:
        """Enter an answer. A second one, and one that the ticket does not allow, are problems."""
        with self._lock:
            if ticket.outcome is not None:
                first = f"{ticket.outcome.kind} {ticket.outcome.detail}".strip()
                said = f"{outcome.kind} {outcome.detail}".strip()
                self._count(ticket, Outcome(Kind.DOUBLE, f"first: {first}; then: {said}"), set())
                return
            ticket.outcome = outcome
            self._open.pop(ticket.id, None)
            self._count(ticket, outcome, ticket.allowed)

    def close_missing(self) -> None:
        """Nothing comes any more: what is still open has lost its answer."""
        for ticket in list(self._open.values()):
            self.close(ticket, Outcome(Kind.MISSING, "the client got neither answer nor error"))

    def note(self, actor: str, model: str, outcome: Outcome, allowed: frozenset[Kind]) -> None:
        """Enter something that began and ended at once."""
        self.close(self.open(actor, model, allowed), outcome)

    def balance(self) -> Balance:
        """The books as they are now."""
        with self._lock:
            return Balance(
                dict(self._counts),
                len(self._open),
                tuple(self._problems),
                self._problem_count,
                tuple(self._known),
            )

    def _count(
        self, ticket: Ticket, outcome: Outcome, allowed: frozenset[Kind] | set[Kind]
    ) -> None:
        self._counts[ticket.actor, ticket.model, outcome.kind] += 1
        if outcome.kind not in allowed:
            self._problem_count += 1
            self._keep(self._problems, ticket, outcome)
        elif outcome.kind in LOUD:
            self._keep(self._known, ticket, outcome)

    def _keep(self, kept: list[Problem], ticket: Ticket, outcome: Outcome) -> None:
        if len(kept) < PROBLEMS_KEPT:
            sent_s = ticket.sent_s - self._began_s
            took_s = self._clock() - ticket.sent_s
            kept.append(
                Problem(
                    ticket.id,
                    ticket.actor,
                    ticket.model,
                    outcome.kind,
                    outcome.detail,
                    sent_s,
                    took_s,
                )
            )
