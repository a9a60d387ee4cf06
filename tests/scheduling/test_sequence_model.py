"""The queue of sequences under any order of events: its promises hold after each of them."""

from __future__ import annotations

from collections import Counter
from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.errors import PenstockError
from penstock.scheduling.batcher import BatchPolicy
from penstock.scheduling.gathering import unknown
from penstock.scheduling.sequence_queue import SequenceQueue
from penstock.scheduling.sequence_slots import SequencePolicy
from steps import Part, part

IDLE_US = 20
IDS = st.integers(1, 5)


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Requests come, are cancelled, run and fail; instances come and go; time passes."""

    @initialize(
        slots=st.integers(1, 3),
        direct=st.booleans(),
        utilization=st.sampled_from([0.0, 0.7]),
        delay_us=st.sampled_from([0, 5]),
        max_rows=st.integers(1, 3),
    )
    def start(
        self, slots: int, direct: bool, utilization: float, delay_us: int, max_rows: int
    ) -> None:
        self.direct = direct
        self.rows = slots if direct else max_rows
        policy = SequencePolicy(slots, IDLE_US, direct, utilization)
        batch = BatchPolicy(max_rows=self.rows, merge=True, max_delay_us=delay_us)
        self.queue = SequenceQueue[Part]("m", policy, batch)
        self.slots = slots
        self.names = 0
        self.sent: dict[int, list[Part]] = {}
        self.answers: Counter[Part] = Counter()
        self.waiting: list[Part] = []
        self.running: dict[str, list[Part]] = {}
        self.owner: dict[tuple[str, int], int] = {}
        """Whose state an instance has in a slot."""
        self.last_run: dict[int, int] = {}
        """Id → place of its last request that ran among those that were sent."""
        self.join()

    # ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        number=IDS,
        flags=st.sampled_from(["", "", "", "<", "<", ">", "<>"]),
        shape=st.sampled_from("aab"),
        patience_us=st.sampled_from([inf, inf, 3]),
    )
    def submit(self, number: int, flags: str, shape: str, patience_us: float) -> None:
        tenant = "xy"[number % 2]
        now_us = self.queue.now_us
        self.names += 1
        request = part(
            f"{number}{flags}:{self.names}",
            shape_key=shape,
            deadline_us=now_us + patience_us,
            tenant=tenant,
            arrived_ns=round(now_us * 1000),
        )
        was_there = self.queue.holds((tenant, number))
        try:
            self.queue.check_sequence(request)
        except PenstockError:
            assert not was_there
            return
        assert was_there or "<" in flags
        self.queue.add(request, now_us)
        self.sent.setdefault(number, []).append(request)
        self.waiting.append(request)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.waiting))
        assert self.queue.cancel(request)
        assert not self.queue.cancel(request)
        self.answer(request)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        instance = data.draw(st.sampled_from(sorted(self.running)))
        if self.running[instance]:
            return
        batch, late = self.queue.take_for(instance, unknown)
        for request in late:
            assert request.deadline_us < self.queue.now_us
            self.answer(request)
        self.check_batch(instance, batch)
        self.running[instance] = batch
        for request in batch:
            self.waiting.remove(request)
            self.check_step(instance, request)

    @precondition(lambda self: any(self.running.values()))
    @rule(data=st.data(), ran=st.sampled_from([True, True, True, False]))
    def finish(self, data: st.DataObject, ran: bool) -> None:
        instance = data.draw(st.sampled_from([name for name, b in self.running.items() if b]))
        if ran:
            self.queue.finished(instance)
        else:
            self.queue.not_run(instance)
        for request in self.running[instance]:
            self.answer(request)
            if not ran and request.step.start:
                # the instance never saw it, so what it has is of no sequence any more
                self.owner.pop((instance, request.step.slot), None)
        self.running[instance] = []

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        instance = data.draw(st.sampled_from(sorted(self.running)))
        failed = self.queue.lose(instance, "gone")
        for request, _ in failed:
            self.answer(request)
        assert {request for request, _ in failed} >= set(self.running.pop(instance))
        self.owner = {place: who for place, who in self.owner.items() if place[0] != instance}

    @precondition(lambda self: len(self.running) < 3)
    @rule()
    def join(self) -> None:
        self.names += 1
        name = f"i{self.names}"
        self.queue.join(name)
        self.running[name] = []

    @rule(us=st.sampled_from([1, 5, 30]))
    def wait(self, us: int) -> None:
        self.queue.now_us += us
        self.queue.end_idle()

    # ── promises ────────────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, request: Part) -> None:
        """It has its answer: the first and last."""
        self.answers[request] += 1
        assert self.answers[request] == 1, request
        if request in self.waiting:
            self.waiting.remove(request)

    def check_batch(self, instance: str, batch: list[Part]) -> None:
        """One request of a sequence, one sequence in a slot, one shape, in the order of slots."""
        assert len(batch) <= self.rows
        assert len({request.sequence.id for request in batch}) == len(batch)
        places = [request.step.slot for request in batch]
        assert len(set(places)) == len(batch)
        assert all(0 <= place < self.slots for place in places)
        assert len({request.shape_key for request in batch}) <= 1
        if self.direct:
            assert places == sorted(places)

    def check_step(self, instance: str, request: Part) -> None:
        """Never on state that is not its sequence's, and always in order of arrival."""
        number, place = request.sequence.id, (instance, request.step.slot)
        assert isinstance(number, int)
        assert request.step.start or self.owner.get(place) == number, request
        assert all(
            other is request or other.sequence.id != number
            for batch in self.running.values()
            for other in batch
        )
        for other, owner in list(self.owner.items()):
            if owner == number and other != place:
                # its state elsewhere is of no use any more
                assert request.step.start
                del self.owner[other]
        self.owner[place] = number
        index = self.sent[number].index(request)
        assert index > self.last_run.get(number, -1)
        self.last_run[number] = index

    @invariant()
    def books_are_right(self) -> None:
        queue = self.queue
        assert queue.requests == len(self.waiting)
        assert queue.nbytes == sum(request.nbytes for request in self.waiting)
        held = queue.slots_held()
        ids = [number for each in held.values() for number in each]
        assert len(ids) == len(set(ids)) == queue.counts.active
        assert queue.live == queue.counts.active + queue.counts.backlog
        assert all(len(each) <= self.slots for each in held.values())
        if queue.counts.backlog:
            assert all(len(each) == self.slots for each in held.values()), "a slot is free"

    def teardown(self) -> None:
        """In the end all is answered, and nothing is left."""
        if not hasattr(self, "queue"):
            return
        if not self.running:
            self.join()
        for _ in range(500):
            for instance, batch in self.running.items():
                if batch:
                    self.queue.finished(instance)
                    for request in batch:
                        self.answer(request)
                batch, late = self.queue.take_for(instance, unknown)
                for request in late:
                    self.answer(request)
                self.running[instance] = batch
            self.queue.now_us += 30
            self.queue.end_idle()
            if not self.queue.live:
                break
        assert not self.queue.live
        assert not self.queue.requests
        assert self.queue.next_idle_us is None
        assert not any(self.queue.slots_held().values())
        assert all(self.answers[request] == 1 for sent in self.sent.values() for request in sent)


AnyOrderOfEvents.TestCase.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None
)
TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
