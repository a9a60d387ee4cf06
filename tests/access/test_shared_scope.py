"""Servers that share a limit, in simulated time: whatever comes, and however late answers are, the bounds hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.access.limits import Limits
from penstock.access.quota_scope import REQUESTS, QuotaScope
from penstock.access.shared_scope import HeldAsk, ScopeAnswer, ScopeAsk, SharedScope
from penstock.access.token_bucket import NS_PER_S

MS = 1_000_000


@dataclass
class Arbiter:
    """What the script in Redis does, in exact words."""

    rate: float
    burst: float
    limit: int
    used: float = 0.0
    at_ns: int = 0
    held: dict[int, int] = field(default_factory=dict)

    def answer(self, server: int, ask: ScopeAsk, now_ns: int) -> ScopeAnswer:
        self.used = max(0.0, self.used - (now_ns - self.at_ns) / NS_PER_S * self.rate)
        self.at_ns = now_ns
        tokens = ask.tokens[REQUESTS]
        granted = tokens.must
        if granted >= 0:
            granted = max(granted, min(tokens.want, floor(self.burst - self.used)))
        self.used = max(0.0, self.used + granted)
        room, free = self._hold(server, ask.in_flight)
        left = self.burst - self.used
        return ScopeAnswer([granted, 0, 0], [left, 0, 0], (room, free), (0, 0), [0, 0, 0])

    def _hold(self, server: int, ask: HeldAsk) -> tuple[int, int]:
        others = sum(room for other, room in self.held.items() if other != server)
        self.held[server] = max(ask.mine, min(ask.want, self.limit - others))
        return self.held[server], self.limit - others - self.held[server]


class Server:
    """One of those that share. It has one message on its way at most."""

    def __init__(self, number: int, arbiter: Arbiter, servers: int) -> None:
        self.number, self.arbiter, self.servers = number, arbiter, servers
        self.scope = QuotaScope("acme", "*")
        limits = Limits(
            requests_per_s=arbiter.rate, burst_requests=arbiter.burst, in_flight=arbiter.limit
        )
        self.scope.configure(limits, 0)
        self.shared = SharedScope(self.scope, 0.1)
        (self.tokens,) = map(self.shared.tokens, self.scope.limiting())
        self.asked: Any = None
        self.answered: Any = None
        # as at its start: nobody is served before the first answer
        self.talk(0)
        self.talk(0)
        self.talk(0)

    def talk(self, now_ns: int) -> None:
        """One step of a message's way: asked, answered, heard."""
        if self.asked is None:
            self.asked = self.shared.ask(idle=False)
        elif self.answered is None:
            self.answered = self.arbiter.answer(self.number, self.asked, now_ns)
        else:
            self.shared.hear(self.asked, self.answered, self.servers, now_ns)
            self.asked = self.answered = None

    def take(self, tokens: int, now_ns: int) -> bool:
        """Whether a request passes."""
        if self.tokens.missing_ns(tokens, now_ns):
            return False
        self.tokens.take(tokens)
        return True


steps = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["take", "take", "talk"]), st.integers(0, 300)),
    max_size=300,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 1000), st.integers(1, 100), st.integers(1, 5), steps)
def test_together_no_more_than_the_rate_a_burst_and_what_is_on_credit(
    rate: int, burst: int, largest: int, taken: list[tuple[int, str, int]]
) -> None:
    largest = min(largest, burst)
    arbiter = Arbiter(rate, burst, 1)
    servers = [Server(number, arbiter, 3) for number in range(3)]
    chunk = servers[0].tokens.chunk
    now_ns = total = 0
    for who, what, pause_ms in taken:
        now_ns += pause_ms * MS // 10
        server = servers[who]
        if what == "talk":
            server.talk(now_ns)
        elif server.take(largest, now_ns):
            total += largest
        most = rate * now_ns / NS_PER_S + burst + 3 * (chunk + largest)
        assert total <= most + 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 1000), st.integers(1, 100), st.integers(1, 3))
def test_who_always_asks_gets_all_there_is(rate: int, more: int, count: int) -> None:
    """Answers take some milliseconds, and each server asks for as much as it can get."""
    # a burst that is used up while an answer is on its way is lost in part
    burst = rate // 20 + 1 + more
    arbiter = Arbiter(rate, burst, 1)
    servers = [Server(number, arbiter, count) for number in range(count)]
    total = 0
    for step in range(1000):
        now_ns = step * MS
        for server in servers:
            while server.take(1, now_ns):
                total += 1
            server.talk(now_ns)
    # the burst too, but for what is in the servers' hands
    assert total >= rate * 0.9 - count
    assert total <= rate + burst + count * (servers[0].tokens.chunk + 1)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 20), st.integers(1, 3), steps)
def test_together_no_more_in_flight_than_the_limit_and_what_was_taken_without_asking(
    limit: int, count: int, happened: list[tuple[int, str, int]]
) -> None:
    arbiter = Arbiter(1, 1, limit)
    servers = [Server(number, arbiter, count) for number in range(count)]
    part = -(-limit // count)
    for who, what, number in happened:
        server = servers[who % count]
        if what == "talk":
            server.talk(0)
        elif number % 3 == 0 and server.scope.in_flight:
            server.scope.in_flight -= 1
        elif server.scope.in_flight < server.scope.max_in_flight:
            server.scope.in_flight += 1
        assert all(server.scope.in_flight <= limit for server in servers)
        assert sum(server.scope.in_flight for server in servers) <= limit + count * part


def test_one_server_alone_may_have_all_at_once() -> None:
    server = Server(0, Arbiter(1, 1, 64), 1)
    assert server.scope.max_in_flight == 64
