"""One server's part of limits that several share. It has no I/O: it says what to ask, and hears the answer.

Of a rate each server takes tokens in chunks, before it needs them. When it has none, and the last answer gives no
reason to think that there are none, it lets a request pass on credit, which the next answer takes from all. Of what may
be in flight each server holds as much as it has, and a little more. Sums of the day are only told.

So, until an answer is there, which takes a round trip, a server may let pass at most: of a rate, a chunk and one
request; of what is in flight, the limit divided by the number of servers; of a day's total, what comes meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf
from typing import Final, NamedTuple

from penstock.access.quota_scope import KindBucket, QuotaScope
from penstock.access.token_bucket import NS_PER_S

ANSWER_S: Final = 0.02
"""About how long an answer takes on a busy machine."""
ASK_NS: Final = 20_000_000
"""When to try again after what another answer is needed for."""


class TokensAsk(NamedTuple):
    """What a server wants of a rate."""

    rate: float = 0
    """0: there is no such limit."""
    burst: float = 0
    want: int = 0
    must: int = 0
    """It has let so many pass already; below 0: it gives so many back."""


class HeldAsk(NamedTuple):
    """What a server wants to hold of what may be in flight."""

    limit: int = 0
    """0: there is none."""
    mine: int = 0
    want: int = 0


class ScopeAsk(NamedTuple):
    """Of one scope."""

    id: str
    tokens: tuple[TokensAsk, TokensAsk, TokensAsk]
    in_flight: HeldAsk
    queued: HeldAsk
    day: tuple[int, int, int] | None
    """What this server has let pass today."""


class ScopeAnswer(NamedTuple):
    """To a ScopeAsk."""

    granted: Sequence[int]
    left: Sequence[float]
    """That all servers may yet take, by kind."""
    in_flight: tuple[int, int]
    """What this server holds now, and what nobody holds."""
    queued: tuple[int, int]
    day: Sequence[int]
    """What all other servers have let pass today."""


class SharedTokens:
    """Tokens of one rate."""

    def __init__(self, bucket: KindBucket, chunk_of_burst: float) -> None:
        self.kind: Final = bucket.kind
        self.bucket = bucket
        self._chunk_of_burst: Final = chunk_of_burst
        self.credit: float = inf
        """Tokens that were taken and not used; infinite while nobody shares."""
        self._short_ns: int | None = None
        """Since when there have been too few for all."""
        self._left = 0.0

    @property
    def chunk(self) -> int:
        """How many are taken at once."""
        rate, burst = self.bucket.rate, self.bucket.burst
        # of a high rate with a small burst as much as goes while an answer comes
        return max(1, int(burst * self._chunk_of_burst), int(min(rate * ANSWER_S, burst / 4)))

    @property
    def hungry(self) -> bool:
        """It should have more, and there may be some."""
        return self._short_ns is None and self.credit < self.chunk

    def missing_ns(self, tokens: int, now_ns: int) -> float:
        """As `Share` says."""
        if tokens <= self.credit:
            return 0
        if self._short_ns is not None:
            need = tokens - self.credit - self._left
            wait_ns = need / self.bucket.rate * NS_PER_S - (now_ns - self._short_ns)
            if wait_ns > 0:
                return ceil(wait_ns)
        return ASK_NS if self.credit <= -self.chunk else 0

    def take(self, tokens: int) -> None:
        """As `Share` says."""
        self.credit -= tokens

    def ask(self, *, idle: bool) -> TokensAsk:
        """What to ask for. `idle`: nobody has wanted any for a while: others may have what is here."""
        credit = 0 if self.credit == inf else int(self.credit)
        bucket = self.bucket
        if idle:
            return TokensAsk(bucket.rate, bucket.burst, 0, -credit)
        must = max(0, -credit)
        chunk = self.chunk
        want = 2 * chunk - credit if credit < chunk else 0
        return TokensAsk(bucket.rate, bucket.burst, want, must)

    def hear(self, ask: TokensAsk, granted: int, left: float, now_ns: int) -> None:
        """The answer to what was asked."""
        if self.credit == inf:
            self.credit = 0
        self.credit += granted
        # what is given back is granted as a number below 0
        self._short_ns = now_ns if ask.must >= 0 and granted < ask.want else None
        self._left = left

    def alone(self) -> None:
        """Nobody shares any more."""
        self.credit = inf


class SharedScope:
    """One scope's part."""

    def __init__(self, scope: QuotaScope, chunk_of_burst: float) -> None:
        self.scope: Final = scope
        self._chunk_of_burst: Final = chunk_of_burst
        self._tokens: dict[int, SharedTokens] = {}
        self.limits = scope.limits
        self.touched = False
        """Something happened since the last look."""
        self.keeps = False
        """It holds what others wait for."""

    def tokens(self, bucket: KindBucket) -> SharedTokens:
        """Of that rate."""
        tokens = self._tokens.get(bucket.kind)
        if tokens is None:
            tokens = self._tokens[bucket.kind] = SharedTokens(bucket, self._chunk_of_burst)
        tokens.bucket = bucket
        return tokens

    @property
    def hungry(self) -> bool:
        """Some rate of it should have more tokens, and there may be some."""
        return any(self.tokens(bucket).hungry for bucket in self.scope.limiting())

    def ask(self, *, idle: bool) -> ScopeAsk:
        """What to ask of all others. `idle`: give back what isn't used."""
        scope = self.scope
        tokens = [TokensAsk(), TokensAsk(), TokensAsk()]
        for bucket in scope.limiting():
            tokens[bucket.kind] = self.tokens(bucket).ask(idle=idle)
        limits = scope.limits
        return ScopeAsk(
            scope.id,
            (tokens[0], tokens[1], tokens[2]),
            _held(limits.in_flight, scope.in_flight),
            _held(limits.queued_bytes, scope.queued),
            (scope.day[0], scope.day[1], scope.day[2]) if scope.limits_day else None,
        )

    def hear(self, ask: ScopeAsk, answer: ScopeAnswer, servers: int, now_ns: int) -> None:
        """The answer to it. Limits may have changed meanwhile: what they are now counts."""
        scope = self.scope
        for bucket in scope.limiting():
            asked = ask.tokens[bucket.kind]
            if asked.rate:
                tokens = self.tokens(bucket)
                tokens.hear(asked, answer.granted[bucket.kind], answer.left[bucket.kind], now_ns)
        limits = scope.limits
        if limits.in_flight is not None and ask.in_flight.limit:
            scope.max_in_flight = _may_hold(limits.in_flight, *answer.in_flight, servers)
        if limits.queued_bytes is not None and ask.queued.limit:
            scope.max_queued = _may_hold(limits.queued_bytes, *answer.queued, servers)
        if ask.day is not None:
            for kind, limit in enumerate(scope.day_limits):
                if limit is not None:
                    scope.max_day[kind] = limit - answer.day[kind]
        self.keeps = bool(
            answer.in_flight[0]
            or answer.queued[0]
            or any(self.tokens(bucket).credit for bucket in scope.limiting())
        )

    def rest(self, servers: int) -> None:
        """Nothing was asked for a while, and nothing is held: what the last answer said is not so any more."""
        limits, scope = self.scope.limits, self.scope
        if limits.in_flight is not None:
            scope.max_in_flight = _part(limits.in_flight, servers)
        if limits.queued_bytes is not None:
            scope.max_queued = _part(limits.queued_bytes, servers)

    def alone(self) -> None:
        """Nobody shares any more: the whole limits are this server's."""
        for tokens in self._tokens.values():
            tokens.alone()
        self.keeps = False
        self.scope.whole()


def _held(limit: int | None, mine: int) -> HeldAsk:
    if limit is None:
        return HeldAsk()
    return HeldAsk(limit, mine, mine + mine // 4 + 1 if mine else 0)


def _may_hold(limit: int, held: int, free: int, servers: int) -> int:
    """Up to where a server may go until the next answer."""
    return min(limit, held + max(0, min(free, _part(limit, servers))))


def _part(limit: int, servers: int) -> int:
    return ceil(limit / max(1, servers))
