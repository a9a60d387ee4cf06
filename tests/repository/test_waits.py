"""Models that call each other never end in a deadlock, whoever calls whom, and when."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.repository.waits import Waits

MODELS = 3


def test_a_model_that_calls_itself_is_a_circle() -> None:
    assert Waits().circular("a", "a")


def test_a_circle_over_others_is_found_and_forgotten() -> None:
    waits = Waits()
    for holder, callee in (("a", "b"), ("b", "c"), ("a", "b")):
        assert not waits.circular(holder, callee)
        waits.begin(holder, callee)
    assert waits.circular("c", "a")
    assert waits.circular("b", "a")
    assert not waits.circular("d", "a")
    waits.end("a", "b")
    assert waits.circular("c", "a")
    waits.end("a", "b")
    assert not waits.circular("c", "a")
    waits.end("b", "c")
    assert len(waits) == 0


@dataclass(frozen=True)
class Call:
    """What a request to a model does: calls of others, one after the other."""

    model: int
    calls: tuple[Call, ...] = ()


@dataclass(eq=False)
class Run:
    """A call under way."""

    call: Call
    caller: Run | None
    left: Iterator[Call] = field(init=False)

    def __post_init__(self) -> None:
        self.left = iter(self.call.calls)


class Server:
    """Models with a queue and a few instances each; instances go on in the order that the test says."""

    def __init__(self, instances: list[int], *, guarded: bool = True) -> None:
        self.idle = instances
        self.queues: list[deque[Run]] = [deque() for _ in instances]
        self.active: list[Run] = []
        """Those that hold an instance and wait for nothing."""
        self.answered = self.refused = self.sent = 0
        self.waits = Waits()
        self._guarded = guarded

    def send(self, call: Call, caller: Run | None = None) -> None:
        """A request comes."""
        run = Run(call, caller)
        self.sent += 1
        if caller is not None:
            holder = caller.call.model
            circular = self.waits.circular(holder, call.model)
            if circular and self._guarded and not self._runs_at_once(call.model):
                self.refused += 1
                self.active.append(caller)
                return
            self.waits.begin(holder, call.model)
        if self._runs_at_once(call.model):
            self.idle[call.model] -= 1
            self.active.append(run)
        else:
            self.queues[call.model].append(run)

    def _runs_at_once(self, model: int) -> bool:
        return self.idle[model] > 0 and not self.queues[model]

    def step(self, which: int) -> None:
        """One of those that can go on does: it sends its next call and waits, or ends."""
        run = self.active.pop(which % len(self.active))
        following = next(run.left, None)
        if following is not None:
            self.send(following, run)
            return
        self.answered += 1
        if run.caller is not None:
            self.waits.end(run.caller.call.model, run.call.model)
            self.active.append(run.caller)
        model = run.call.model
        if self.queues[model]:
            self.active.append(self.queues[model].popleft())
        else:
            self.idle[model] += 1


models = st.integers(0, MODELS - 1)
calls = st.recursive(
    st.builds(Call, models),
    lambda inner: st.builds(Call, models, st.lists(inner, max_size=3).map(tuple)),
    max_leaves=8,
)


@given(
    instances=st.lists(st.integers(1, 2), min_size=MODELS, max_size=MODELS),
    requests=st.lists(calls, min_size=1, max_size=8),
    order=st.data(),
)
def test_everybody_is_answered_or_refused(
    instances: list[int], requests: list[Call], order: st.DataObject
) -> None:
    server = Server(list(instances))
    waiting = list(requests)
    while waiting or server.active:
        if waiting and (not server.active or order.draw(st.booleans())):
            server.send(waiting.pop())
        else:
            server.step(order.draw(st.integers(0, 7)))
    assert server.answered + server.refused == server.sent
    assert server.idle == instances
    assert len(server.waits) == 0


@pytest.mark.parametrize("guarded", [True, False])
def test_two_models_that_wait_for_each_other(guarded: bool) -> None:
    server = Server([1, 1], guarded=guarded)
    server.send(Call(0, (Call(1),)))
    server.send(Call(1, (Call(0),)))
    steps = 0
    while server.active and steps < 20:
        server.step(0)
        steps += 1
    everybody = server.answered + server.refused == server.sent
    assert everybody is guarded, "without the guard this is the deadlock that it is there for"
