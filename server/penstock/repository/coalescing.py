"""Requests that are the same, and under way at the same time, are run once.

What is run is a request of its own, in the place of all that wait for it. One of these leads: the run has its inputs,
deadline, trace and caller, and is counted as its. The others come and go, each with its own deadline and client. When
the leader goes the run goes on, and another one leads. An error of the model is everybody's, for it would be the same
again; one that is only the leader's, who had less time than others, is not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import Final, Protocol

from penstock.caching.answer import NOTHING, Kept
from penstock.caching.flight import Flight
from penstock.caching.room import Room
from penstock.errors import Cancelled, PenstockError, QueueFull, Unavailable
from penstock.repository.alarm import Alarm
from penstock.repository.model_queue import ModelQueue
from penstock.repository.unanswered import CLIENT_GONE
from penstock.scheduling.expiry import Expiry
from penstock.scheduling.refusals import is_timeout
from penstock.telemetry.statistics import FailureReason
from penstock.types import OutputTensor, Parameter
from penstock.workers.request import Answer, PendingRequest


class Answering(Protocol):
    """Who hands out answers."""

    def keep(
        self,
        key: bytes,
        outputs: Sequence[OutputTensor],
        parameters: Mapping[str, Parameter],
        *,
        needed: bool,
    ) -> Kept:
        """Cache a model's answer where it fits. Returns copies if it did, or if they are `needed`."""
        ...

    def missed(self, ns: int) -> None:
        """A request was run, after and before so much time for the cache."""
        ...

    def hit(
        self, request: PendingRequest, answer: Kept, lookup_ns: int, *, coalesced: bool
    ) -> None:
        """Answer a request, which is not run."""
        ...

    def refused(self, request: PendingRequest) -> None:
        """Count a request that was not taken."""
        ...

    def finish(self, request: PendingRequest, answer: Answer) -> None:
        """Hand out an answer that is counted already."""
        ...

    def fail(
        self,
        request: PendingRequest,
        error: PenstockError,
        reason: FailureReason,
        *,
        at_once: bool = False,
    ) -> None:
        """Count an error and hand it out; `at_once`: whosever turn it is."""
        ...


class _Nobody:
    """The queue of runs: who waits for them cancels himself."""

    def cancel(self, request: PendingRequest) -> None:
        """Nobody does."""


_NOBODYS: Final = _Nobody()


class _Flight(Flight[PendingRequest]):
    """With what is known of its run."""

    run: PendingRequest
    """Deleted when it has ended."""

    def __init__(self, first: PendingRequest, key: bytes, lookup_ns: int) -> None:
        super().__init__(first)
        self.key = key
        self.lookup_ns = {first: lookup_ns}
        """How long it took to look each up."""
        self.boarded: set[PendingRequest] = set()
        """All but the one for which it was begun."""
        self.kept: Kept | None = None
        """Set when the model has answered."""
        self.keeping_ns = 0
        self.held_for: dict[PendingRequest, None] = {}
        """Those that an instance of another model waits for."""
        self.note(first)

    def note(self, request: PendingRequest) -> None:
        """It is one of them now."""
        if request.is_held_for:
            self.held_for[request] = None

    @property
    def has_run(self) -> bool:
        """Whether one is under way."""
        return hasattr(self, "run")


class Coalescing:
    """Of one model."""

    def __init__(self, queue: ModelQueue, answering: Answering, room: Room) -> None:
        self._queue = queue
        self._answering = answering
        self._room = room
        self._flights: dict[bytes, _Flight] = {}
        self._waiting: dict[PendingRequest, _Flight] = {}
        self._expiry = Expiry[PendingRequest]()
        self._alarm = Alarm(asyncio.get_running_loop(), self._end_expired)

    @property
    def runs(self) -> int:
        """How many are under way."""
        return len(self._flights)

    def submit(self, request: PendingRequest, key: bytes, lookup_ns: int) -> None:
        """Run a request, or have it wait for one that has the same key. Raises PenstockError, which is counted."""
        flight = self._flights.get(key)
        if flight is None:
            self._take_off(request, key, lookup_ns)
        else:
            self._board(flight, request, lookup_ns)
        if request.deadline_us != inf:
            self._expiry.add(request)
            self._alarm.at(request.deadline_us, time.monotonic_ns() / 1000)

    def cancel(self, request: PendingRequest) -> bool:
        """Nobody waits for its answer any more. False when it isn't here."""
        flight = self._waiting.get(request)
        if flight is None:
            return False
        self._leave(flight, request)
        gone = Cancelled(CLIENT_GONE)
        self._answering.fail(request, gone, FailureReason.CANCELED, at_once=True)
        self._go_on(flight)
        return True

    def close(self) -> None:
        """All that was here is answered."""
        self._alarm.cancel()

    # ── who waits ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_off(self, request: PendingRequest, key: bytes, lookup_ns: int) -> None:
        flight = self._flights[key] = _Flight(request, key, lookup_ns)
        self._waiting[request] = flight
        try:
            self._queue.submit(self._new_run(flight))
        except PenstockError:
            del self._waiting[request]
            self._end(flight)
            raise

    def _board(self, flight: _Flight, request: PendingRequest, lookup_ns: int) -> None:
        try:
            self._room.enter(request)
        except QueueFull:
            self._answering.refused(request)
            raise
        flight.board(request)
        flight.note(request)
        flight.boarded.add(request)
        flight.lookup_ns[request] = lookup_ns
        self._waiting[request] = flight
        run = flight.run
        more_urgent = _leader(flight) is not flight.leader or flight.priority < run.priority
        if more_urgent and self._queue.withdraw(run):
            self._run_again(flight)

    def _leave(self, flight: _Flight, request: PendingRequest) -> None:
        flight.leave(request)
        flight.held_for.pop(request, None)
        del self._waiting[request]
        if request in flight.boarded:
            flight.boarded.remove(request)
            self._room.leave(request)
        if request.deadline_us != inf:
            self._expiry.answered(request)

    def _end_expired(self) -> None:
        """Each waits for as long as it itself may."""
        now_us = time.monotonic_ns() / 1000
        left: dict[_Flight, None] = {}
        for request in self._expiry.due(now_us):
            flight = self._waiting.get(request)
            if flight is None:
                # its answer is being made
                continue
            self._leave(flight, request)
            error = self._queue.missed(request)
            self._answering.fail(request, error, FailureReason.REJECTED, at_once=True)
            left[flight] = None
        for flight in left:
            self._go_on(flight)
        next_us = self._expiry.next_us
        if next_us is not None:
            self._alarm.at(next_us, now_us)

    # ── what runs ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _new_run(self, flight: _Flight) -> PendingRequest:
        """In the place of all; on the terms of the leader."""
        leader = flight.leader = _leader(flight)
        run = PendingRequest(
            leader.plan,
            leader.id,
            leader.buffers,
            partial(self._encode, flight),
            partial(self._respond, flight),
            leader.arrived_ns,
            _NOBODYS,
            leader.nbytes,
            leader.tenant,
            leader.deadline_us,
            leader.deadline_is_clients,
        )
        run.priority = flight.priority
        if flight.has_run:
            # workers may have died under the one before
            run.attempts, run.shape_key = flight.run.attempts, flight.run.shape_key
        run.shared = flight
        run.caller, run.trace = leader.caller, leader.trace
        flight.run = run
        return run

    def _go_on(self, flight: _Flight) -> None:
        """Some have left. Without any left there is nothing to run; without its leader another one leads."""
        run = flight.run
        if not len(flight):
            self._end(flight)
            self._queue.abandon(run)
        elif flight.leader in self._waiting:
            return
        elif self._queue.withdraw(run):
            self._run_again(flight)
        else:
            leader = flight.leader = _leader(flight)
            # should it be gathered once more, it is of inputs that are still there
            run.buffers, run.arrived_ns = leader.buffers, leader.arrived_ns
            run.deadline_us = leader.deadline_us
            run.deadline_is_clients = leader.deadline_is_clients
            run.caller, run.trace = leader.caller, leader.trace

    def _run_again(self, flight: _Flight) -> None:
        run = self._new_run(flight)
        try:
            self._queue.requeue(run)
        except PenstockError as error:
            self._respond(flight, run, error)

    def _end(self, flight: _Flight) -> None:
        del self._flights[flight.key]
        # they know each other: without this their memory waits for a collection that is seldom due
        del flight.run

    # ── what became of it ───────────────────────────────────────────────────────────────────────────────────────────

    def _encode(self, flight: _Flight, run: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """The leader's response, made of the slab; the others' are made of a copy."""
        began_ns = time.monotonic_ns()
        leader, parameters, needed = flight.leader, run.response_parameters, len(flight) > 1
        flight.kept = self._answering.keep(flight.key, outputs, parameters, needed=needed)
        flight.keeping_ns = time.monotonic_ns() - began_ns
        leader.response_parameters = parameters
        return leader.encode(leader, outputs)

    def _respond(self, flight: _Flight, run: PendingRequest, answer: Answer) -> None:
        if not flight.has_run or flight.run is not run:
            # another one has taken its place
            return
        if flight.kept is None and isinstance(answer, PenstockError):
            self._failed(flight, answer)
            return
        self._end(flight)
        leader, kept = flight.leader, flight.kept or NOTHING
        waiting = list(flight)
        for request in waiting:
            self._leave(flight, request)
        if isinstance(answer, bytes):
            self._answering.missed(flight.lookup_ns[leader] + flight.keeping_ns)
        self._answering.finish(leader, answer)
        for request in waiting:
            if request is not leader:
                lookup_ns = flight.lookup_ns[request]
                self._answering.hit(request, kept, lookup_ns, coalesced=True)

    def _failed(self, flight: _Flight, error: PenstockError) -> None:
        """The error is counted already for the leader."""
        leader = flight.leader
        if is_timeout(error) and len(flight) > 1:
            self._leave(flight, leader)
            self._answering.finish(leader, error)
            self._run_again(flight)
            return
        self._end(flight)
        reason = FailureReason.OTHER if isinstance(error, Unavailable) else FailureReason.BACKEND
        for request in list(flight):
            self._leave(flight, request)
            if request is leader:
                self._answering.finish(request, error)
            else:
                self._answering.fail(request, error, reason)


def _leader(flight: _Flight) -> PendingRequest:
    """The one whose time ends first. One that an instance of another model waits for goes before all: that holds what
    others may need, and the run gets its resources whatever there is."""
    return next(iter(flight.held_for), flight.first)
