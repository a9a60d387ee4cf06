"""The rate limiter: what is held, whose turn it is, and that everybody's comes."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.errors import ConfigError
from penstock.rate_limit_config import EVERY_DEVICE, Resource
from penstock.scheduling.rate_limiter import PATIENCE, Member, RateLimiter
from penstock.scheduling.resources import GLOBAL, Needs, Supply

pytestmark = pytest.mark.extension("rate_limiter")

R1, R2, R3, R4 = (Resource(f"R{number}", 0) for number in range(1, 5))


def needs(priority: int = 1, **counts: int) -> Needs:
    """On device 0."""
    return Needs({Resource(name, 0): count for name, count in counts.items()}, priority)


class Bench:
    """A limiter and its members, by name."""

    def __init__(self, said: dict[Resource, int] | None = None, **members: Needs) -> None:
        self.limiter = RateLimiter(said or {})
        self.woken: list[str] = []
        self.members: dict[str, Member] = {}
        for name, each in members.items():
            self.limiter.admit(name, name, [each])
            self.members[name] = Member(each, partial(self.woken.append, name))

    def ask(self, name: str, **options: Any) -> bool:
        return self.limiter.ask(self.members[name], **options)

    def run(self, name: str, **options: Any) -> bool:
        """Give it a batch, if it may have one."""
        may = self.ask(name, **options)
        if may:
            self.limiter.began(self.members[name])
        return may

    def end(self, name: str, *, more: bool = False) -> None:
        self.limiter.ended(self.members[name], more=more)


# ── how much there is ───────────────────────────────────────────────────────────────────────────────────────────────


def test_there_is_as_much_as_the_neediest_wants() -> None:
    """The example of Triton's documentation."""
    supply = Supply({})
    supply.admit("a", "a", [needs(R1=4, R2=4)])
    supply.admit("b", "b", [needs(R2=5, R3=10, R4=5)])
    supply.admit("c", "c", [needs(R1=1, R3=7, R4=2)])
    assert supply.counts == {R1: 4, R2: 5, R3: 10, R4: 5}
    supply.leave("b")
    assert supply.counts == {R1: 4, R2: 4, R3: 7, R4: 2}


def test_what_was_said_is_what_there_is() -> None:
    """Also of Triton's documentation: R3 is global, and of R2 each device has another count."""
    said = {
        Resource("R1", EVERY_DEVICE): 10,
        Resource("R2", 0): 5,
        Resource("R2", 1): 8,
        Resource("R3", EVERY_DEVICE): 2,
    }
    supply = Supply(said)
    wanted = [Resource("R1", 0), Resource("R1", 1), Resource("R2", 0), Resource("R2", 1)]
    supply.admit("m", "m", [Needs(dict.fromkeys([*wanted, Resource("R3", GLOBAL)], 1))])
    assert [supply.counts[each] for each in wanted] == [10, 10, 5, 8]
    assert supply.counts[Resource("R3", GLOBAL)] == 2


@pytest.mark.parametrize(("name", "available"), [("R1", 3), ("R2", 0)])
def test_who_could_never_run_is_not_let_in(name: str, available: int) -> None:
    supply = Supply({R1: 3})
    text = (
        f'Resource count for "{name}" is limited to {available} which will prevent scheduling of one or more model'
        " instances, the minimum required count is 4"
    )
    with pytest.raises(ConfigError, match=text):
        supply.admit("m", "m", [needs(), needs(**{name: 4})])
    assert supply.counts == {}


def test_a_resource_is_global_for_all_or_for_none() -> None:
    supply = Supply({})
    supply.admit("a 1", "a", [needs(R1=1)])
    text = 'Resource "R1" is present as both global and device-specific resource'
    with pytest.raises(ConfigError, match=text):
        supply.admit("b 1", "b", [Needs({Resource("R1", GLOBAL): 1})])
    # but a model may change its mind, while its old version still runs
    supply.admit("a 2", "a", [Needs({Resource("R1", GLOBAL): 1})])


# ── turns ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_needs_nothing_always_may() -> None:
    bench = Bench(a=needs(R1=1), b=needs())
    assert bench.run("a")
    assert bench.run("b")
    assert bench.run("b")


def test_one_waits_until_the_other_has_ended() -> None:
    bench = Bench(a=needs(R1=2), b=needs(R1=1))
    assert bench.run("a")
    assert not bench.run("b")
    assert bench.limiter.counts(R1) == (2, 2)
    bench.end("a")
    assert bench.woken == ["b"]
    assert bench.run("b")
    assert bench.limiter.counts(R1) == (1, 2)


def test_both_run_where_there_is_enough() -> None:
    bench = Bench({R1: 3}, a=needs(R1=2), b=needs(R1=1), c=needs(R1=1))
    assert [bench.run(name) for name in "abc"] == [True, True, False]


def test_devices_are_apart_and_global_resources_are_not() -> None:
    here, there = (Needs({Resource("R", device): 1}) for device in (0, 1))
    bench = Bench(a=here, b=there)
    assert bench.run("a")
    assert bench.run("b")
    everywhere = Needs({Resource("R", GLOBAL): 1})
    bench = Bench(a=everywhere, b=everywhere)
    assert bench.run("a")
    assert not bench.run("b")


def test_a_busy_instance_gets_more_only_while_nobody_waits_for_what_it_holds() -> None:
    bench = Bench(a=needs(R1=1), b=needs(R1=1), c=needs(R2=1))
    assert bench.run("a")
    assert bench.run("a")
    assert bench.run("c")
    assert not bench.run("b")
    assert not bench.run("a")
    assert bench.run("c")
    bench.end("a")
    assert bench.woken == []
    bench.end("a", more=True)
    assert bench.woken == ["b"]


def test_who_has_nothing_to_run_after_all_gives_it_back() -> None:
    bench = Bench(a=needs(R1=1), b=needs(R1=1))
    assert bench.ask("a")
    assert not bench.ask("b")
    bench.limiter.withdraw(bench.members["a"])
    assert bench.woken == ["b"]
    bench.limiter.withdraw(bench.members["b"])
    assert bench.limiter.counts(R1) == (0, 1)


def test_who_is_gone_holds_nothing() -> None:
    bench = Bench(a=needs(R1=1), b=needs(R1=1), c=needs(R1=1))
    assert bench.run("a")
    assert not bench.run("b")
    assert not bench.run("c")
    bench.limiter.leave(bench.members["b"])
    bench.limiter.leave(bench.members["a"])
    assert bench.woken == ["c"]


def test_what_others_wait_for_runs_at_once() -> None:
    bench = Bench(a=needs(R1=1), b=needs(R1=1))
    assert bench.run("a")
    assert bench.run("b", at_once=True)
    assert bench.limiter.counts(R1) == (2, 1)
    bench.end("b")
    bench.end("a")
    assert bench.limiter.counts(R1) == (0, 1)


def turns(bench: Bench, count: int) -> Counter[str]:
    """All always have something to run, for as long as it takes to end the one that began first."""
    running: list[str] = []
    ran: Counter[str] = Counter()
    for name in bench.members:
        if bench.run(name):
            running.append(name)
    for _ in range(count):
        name = running.pop(0)
        ran[name] += 1
        bench.woken.clear()
        bench.end(name, more=True)
        for other in bench.woken:
            assert bench.run(other)
            running.append(other)
    return ran


def test_priority_2_gets_half_as_many_turns() -> None:
    ran = turns(Bench(a=needs(1, R1=1), b=needs(2, R1=1), c=needs(4, R1=1)), 700)
    assert all(abs(ran[name] - share) <= 4 for name, share in (("a", 400), ("b", 200), ("c", 100)))


def test_who_comes_later_has_not_saved_up_turns() -> None:
    bench = Bench(a=needs(R1=1), b=needs(R1=1))
    for _ in range(1000):
        assert bench.run("a")
        bench.end("a")
    ran = turns(bench, 100)
    assert abs(ran["a"] - ran["b"]) <= 2


def test_small_ones_overtake_a_big_one_but_not_for_ever() -> None:
    small = needs(R1=1)
    ran = turns(Bench({R1: 4}, x=small, y=small, z=small, big=needs(R1=4)), 400)
    # as the small ones have four turns at a time, and each of them has to wait for the big one now and then
    assert ran["big"] >= 400 / (2 * (PATIENCE + 4))
    assert ran["x"] > ran["big"]


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Whatever happens: nobody holds more than there is, nothing lies idle that somebody could use, all come on."""

    @initialize(
        said=st.sampled_from([None, {R1: 3, R2: 2}]),
        wants=st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 3)),
            min_size=2,
            max_size=5,
        ),
    )
    def start(self, said: dict[Resource, int] | None, wants: list[tuple[int, int, int]]) -> None:
        named = {
            f"m{number}": needs(priority, **{k: n for k, n in (("R1", r1), ("R2", r2)) if n})
            for number, (r1, r2, priority) in enumerate(wants)
        }
        self.bench = Bench(said, **named)
        self.eager: set[str] = set()
        """They would run something, and wait for their turn."""
        self.running: Counter[str] = Counter()

    names = st.integers(0, 4)

    @rule(number=names)
    def ask(self, number: int) -> None:
        name = f"m{number}"
        if name not in self.bench.members:
            return
        if self.bench.run(name):
            self.running[name] += 1
            self.eager.discard(name)
        elif not self.running[name]:
            self.eager.add(name)

    @rule(number=names, more=st.booleans())
    def end(self, number: int, more: bool) -> None:
        name = f"m{number}"
        if not self.running[name]:
            return
        self.running[name] -= 1
        self.bench.end(name, more=more)
        if more and not self.running[name]:
            self.eager.add(name)
            if not self.bench.members[name].needs.resources:
                self.ask(number)
        self._run_woken()

    @rule(number=names)
    def withdraw(self, number: int) -> None:
        name = f"m{number}"
        if name in self.bench.members:
            self.bench.limiter.withdraw(self.bench.members[name])
            self.eager.discard(name)
            self._run_woken()

    @precondition(lambda self: self.running.total())
    @rule()
    def all_come_on(self) -> None:
        """When what runs ends, and nobody new comes, all that wait have their turns."""
        for _ in range(len(self.eager) + self.running.total()):
            for name in list(self.running.elements()):
                self.running[name] -= 1
                self.bench.end(name, more=False)
                self._run_woken()
        assert not self.eager

    def _run_woken(self) -> None:
        while self.bench.woken:
            name = self.bench.woken.pop(0)
            assert name in self.eager
            assert self.bench.run(name)
            self.eager.discard(name)
            self.running[name] += 1

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "bench"):
            return
        for resource in (R1, R2):
            held, count = self.bench.limiter.counts(resource)
            users = [self.bench.members[name] for name, n in self.running.items() if n]
            assert held == sum(each.needs.resources.get(resource, 0) for each in users)
            assert held <= count
        for name in self.eager:
            member = self.bench.members[name]
            fits = all(
                self.bench.limiter.counts(each)[0] + n <= self.bench.limiter.counts(each)[1]
                for each, n in member.needs.resources.items()
            )
            patient = any(self.bench.members[other].overtaken >= PATIENCE for other in self.eager)
            assert not fits or patient


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, database=None
)
