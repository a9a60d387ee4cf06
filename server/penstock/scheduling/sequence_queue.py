"""The queue of a stateful model: every sequence has a slot of one instance from its start to its end, or waits for one.

Pure logic, like all of this package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic

from penstock.errors import PenstockError
from penstock.scheduling.batcher import Batcher, BatchPolicy
from penstock.scheduling.gathering import Cost, unknown
from penstock.scheduling.sequence import Request, Sequence
from penstock.scheduling.sequence_backlog import Backlog, Ending, Endings, SequenceCounts
from penstock.scheduling.sequence_slots import DirectSlots, OldestSlots, SequencePolicy, Slots
from penstock.types import SequenceId, SequenceKey


class SequenceQueue(Batcher[Request], Generic[Request]):
    """In place of a batcher. A sequence that has nothing to do keeps its slot until it was idle for too long."""

    def __init__(
        self,
        model: str,
        policy: SequencePolicy,
        batch: BatchPolicy,
        weight_of: Callable[[str], float] = lambda _: 1.0,
        usual: Cost = unknown,
    ) -> None:
        super().__init__(model, batch, weight_of, usual)
        self.policy = policy
        self._model = model
        self._weight_of = weight_of
        self._live: dict[SequenceKey, Sequence[Request]] = {}
        self._of: dict[Request, Sequence[Request]] = {}
        """Of all that wait."""
        self._instances: dict[Hashable, Slots[Request]] = {}
        self._running: dict[Hashable, list[Sequence[Request]]] = {}
        self._backlog = Backlog[Request](weight_of)
        self._held: Counter[str] = Counter()
        self._idle: dict[Sequence[Request], float] = {}
        """Since when they have nothing to do, longest first."""
        self.now_us = 0.0
        """The present, which whoever calls sets before."""
        self.endings = Endings(model, policy.idle_us)
        self.counts = SequenceCounts()

    # ── instances ───────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self, instance: Hashable) -> None:
        """Its slots are free."""
        if self.policy.direct:
            slots: Slots[Request] = DirectSlots(self.policy, self._policy, self._usual)
        else:
            slots = OldestSlots(
                self._model, self.policy, self._policy, self._weight_of, self._usual
            )
        self._instances[instance] = slots
        self._running[instance] = []
        self._fill_slots()

    def lose(self, instance: Hashable, reason: str) -> list[tuple[Request, PenstockError]]:
        """It is gone, with the state of its sequences. Returns all requests that were under way, and what they hear.

        What can begin anew, for its START has not run, waits for another slot.
        """
        failed: list[tuple[Request, PenstockError]] = []
        slots = self._instances.pop(instance)
        del self._running[instance]
        for sequence in slots.held.values():
            was_open, had_begun = sequence.open, sequence.begun
            self._held[sequence.tenant] -= 1
            self._idle.pop(sequence, None)
            for request in sequence.lose():
                self._left(request)
                failed.append((request, self.endings.loss(sequence.key, reason)))
            if had_begun:
                self.counts.ended[Ending.LOST] += 1
            if sequence.waiting:
                self._backlog.add(sequence)
                continue
            del self._live[sequence.key]
            if was_open:
                self.endings.lost(sequence.key, reason)
        self._fill_slots()
        return failed

    # ── in ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def check_sequence(self, request: Request) -> None:
        """Raises InvalidRequest or Unavailable for a request that goes on with a sequence which is not there."""
        terms = request.sequence
        if terms.start:
            return
        key = request.tenant, terms.id
        sequence = self._live.get(key)
        if sequence is None or not sequence.open:
            raise self.endings.error(key)

    def add(self, request: Request, now_us: float, *, again: bool = False) -> None:
        """Queue a request that was checked, behind those of its sequence. None is ever queued `again`."""
        terms = request.sequence
        key = request.tenant, terms.id
        sequence = self._live.get(key)
        if sequence is None:
            sequence = self._live[key] = Sequence(key, terms.id, request.tenant, self._number())
            self._backlog.add(sequence)
        if terms.start:
            self.endings.forget(key)
        sequence.add(request)
        self._of[request] = sequence
        self.requests += 1
        self.rows += request.rows
        self.nbytes += request.nbytes
        self._idle.pop(sequence, None)
        self._settle(sequence)
        self._fill_slots()

    def cancel(self, request: Request) -> bool:
        """Take a waiting request out; the sequence goes on. False when it isn't waiting (any more)."""
        sequence = self._of.get(request)
        if sequence is None:
            return False
        self._withdraw(sequence, request)
        return True

    def drain(self) -> list[Request]:
        """Take out all that waits, and end all sequences that don't run."""
        waiting = list(self._of)
        for request in waiting:
            self.cancel(request)
        return waiting

    # ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def take_for(self, instance: Hashable, cost: Cost) -> tuple[list[Request], list[Request]]:
        """As `take`, for an instance that has no batch: its batch in the order of its rows."""
        late: list[Request] = []
        while True:
            batch, too_late = self._instances[instance].take(self.now_us, cost)
            for request in too_late:
                self._withdraw(self._of[request], request)
            late += too_late
            if batch or not too_late:
                break
        running = self._running[instance]
        for request in batch:
            sequence = self._of[request]
            self._left(request)
            sequence.take()
            running.append(sequence)
        return batch, late

    def finished(self, instance: Hashable) -> None:
        """The instance's batch has ended."""
        done, self._running[instance] = self._running[instance], []
        for sequence in done:
            entry, sequence.running = sequence.running, None
            if entry is not None and entry.last:
                sequence.over = True
            self._settle(sequence)
        self._fill_slots()

    def not_run(self, instance: Hashable) -> None:
        """What was taken last for the instance could not be given to it, and won't run."""
        untouched, self._running[instance] = self._running[instance], []
        for sequence in untouched:
            sequence.withdraw(sequence.put_back())
            self._settle(sequence)
        self._fill_slots()

    def next_due_us(self) -> float | None:
        """When some instance that has no batch will get one though nothing arrives."""
        return min(
            (
                due_us
                for instance, slots in self._instances.items()
                if not self._running[instance] and (due_us := slots.next_due_us()) is not None
            ),
            default=None,
        )

    def due_us(self, instance: Hashable) -> float | None:
        """When this instance will get a batch though nothing arrives; None: not before something does."""
        return self._instances[instance].next_due_us()

    # ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def end_idle(self) -> list[SequenceId]:
        """End those that were idle for too long."""
        ended = []
        for sequence, since_us in list(self._idle.items()):
            if self.now_us < since_us + self.policy.idle_us:
                break
            ended.append(sequence.id)
            self.endings.idle(sequence.key)
            self._release(sequence, Ending.IDLE)
        self._fill_slots()
        return ended

    def abandon(self, reason: str) -> None:
        """Nobody will go on with any sequence here: remember all of them as lost."""
        for sequence in self._live.values():
            self.endings.lost(sequence.key, reason)

    @property
    def next_idle_us(self) -> float | None:
        """When `end_idle` may have something."""
        since_us = next(iter(self._idle.values()), None)
        return None if since_us is None else since_us + self.policy.idle_us

    def holds(self, key: SequenceKey) -> bool:
        """Whether a request may go on with it here."""
        sequence = self._live.get(key)
        return sequence is not None and sequence.open

    @property
    def live(self) -> int:
        """Sequences that have not ended."""
        return len(self._live)

    def slots_held(self) -> dict[Hashable, list[SequenceId]]:
        """Instance → the ids of the sequences that it has, by slot."""
        return {
            instance: [sequence.id for _, sequence in sorted(slots.held.items())]
            for instance, slots in self._instances.items()
        }

    # ── books ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _left(self, request: Request) -> None:
        """It does not wait any more."""
        if self._of.pop(request, None) is not None:
            self.requests -= 1
            self.rows -= request.rows
            self.nbytes -= request.nbytes

    def _withdraw(self, sequence: Sequence[Request], request: Request) -> None:
        self._left(request)
        if sequence.offered is request:
            self._instances[sequence.instance].retract(sequence, request)
            sequence.offered = None
        sequence.withdraw(request)
        self._settle(sequence)
        self._fill_slots()

    def _settle(self, sequence: Sequence[Request]) -> None:
        """What is to happen with it next, if nothing of it runs."""
        if sequence.running is not None:
            return
        if sequence.over:
            self._release(sequence, Ending.COMPLETED)
        elif sequence.slot < 0:
            return
        elif not sequence.waiting:
            self._idle[sequence] = self.now_us
        elif sequence.offered is None:
            request = sequence.offered = sequence.waiting[0].request
            self._instances[sequence.instance].offer(sequence, request, self.now_us)

    def _release(self, sequence: Sequence[Request], ending: Ending) -> None:
        """It is over. Another one of its id may wait behind it, which waits for its turn like any."""
        self.counts.ended[ending] += 1
        self._idle.pop(sequence, None)
        sequence.over = sequence.begun = False
        if sequence.slot >= 0:
            if sequence.offered is not None:
                self._instances[sequence.instance].retract(sequence, sequence.offered)
                sequence.offered = None
            self._instances[sequence.instance].vacate(sequence)
            self._held[sequence.tenant] -= 1
        else:
            self._backlog.remove(sequence)
        if sequence.waiting:
            sequence.number = self._number()
            self._backlog.add(sequence)
        else:
            del self._live[sequence.key]

    def _fill_slots(self) -> None:
        """Give free slots to those that wait for one, the lowest first: that keeps batches small."""
        while self._backlog:
            free = [
                (slot, len(slots.held), order)
                for order, slots in enumerate(self._instances.values())
                if (slot := slots.next_free) is not None
            ]
            if not free:
                break
            instance = list(self._instances)[min(free)[2]]
            sequence = self._backlog.pop(self._held)
            sequence.instance = instance
            self._instances[instance].occupy(sequence)
            self._held[sequence.tenant] += 1
            self._settle(sequence)
        self.counts.backlog = len(self._backlog)
        self.counts.active = len(self._live) - len(self._backlog)
