"""What is said of a quota that is used up: which limit, whose, how much, and when to come back."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import Final

from penstock.access.limits import ALL_MODELS
from penstock.access.quota_scope import BYTES, WHAT, Costs, KindBucket, QuotaScope
from penstock.access.token_bucket import NS_PER_S
from penstock.errors import QuotaExceeded

BUSY_RETRY_S: Final = 0.1
"""For what is in flight nobody knows when it will be answered: a guess that keeps clients from trying all the time."""


@dataclass(frozen=True, slots=True)
class Excess:
    """One limit that a request would exceed."""

    text: str
    wait_s: float
    """Until there is enough again; infinite: the request never fits."""
    policy: str
    """The limit's name in headers."""
    quota: float
    remaining: float
    reset_s: float
    """Until all of the quota is there again."""
    window_s: float
    """Over which the quota is counted; 0: over none."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """`RateLimit-Policy` and `RateLimit` as the IETF draft has them (draft-ietf-httpapi-ratelimit-headers-10), and
        the three fields of its earlier versions, which more clients read."""
        quota, remaining = int(self.quota), max(0, int(self.remaining))
        reset = max(1, ceil(min(self.reset_s, 1e9)))
        window = f";w={max(1, ceil(self.window_s))}" if self.window_s else ""
        return (
            ("ratelimit-policy", f'"{self.policy}";q={quota}{window}'),
            ("ratelimit", f'"{self.policy}";r={remaining};t={reset}'),
            ("ratelimit-limit", str(quota)),
            ("ratelimit-remaining", str(remaining)),
            ("ratelimit-reset", str(reset)),
        )


def refusal(excesses: list[Excess]) -> QuotaExceeded:
    """The error for a request: of several limits the one that holds it up longest."""
    worst = max(excesses, key=lambda excess: excess.wait_s)
    after_s = None if worst.wait_s == inf else worst.wait_s
    return QuotaExceeded(worst.text, after_s, worst.headers)


def of_bucket(
    bucket: KindBucket, costs: Costs, wait_ns: float, remaining: float, now_ns: int
) -> Excess:
    """A rate. `remaining`: tokens."""
    scope, what, cost = bucket.scope, WHAT[bucket.kind], costs[bucket.kind]
    rate, burst = _number(bucket.rate), _number(bucket.burst)
    if wait_ns == inf:
        text = (
            f"{cost} {what} in one request are more than the {burst} {what} that {_whose(scope)} may send at once: the"
            " request can never be admitted, a smaller one can"
        )
    else:
        text = f"{_whose(scope)} may send {rate} {what}/s ({burst} at once), and has sent as many"
    return Excess(
        text,
        wait_ns / NS_PER_S,
        _policy(scope, f"{what}-per-second"),
        bucket.burst,
        remaining,
        bucket.empty_ns(now_ns) / NS_PER_S,
        bucket.burst / bucket.rate,
    )


def of_flight(scope: QuotaScope, limit: int) -> Excess:
    """Requests in flight."""
    return Excess(
        f"{_whose(scope)} may have {limit} requests in flight, and has as many",
        BUSY_RETRY_S,
        _policy(scope, "requests-in-flight"),
        limit,
        limit - scope.in_flight,
        BUSY_RETRY_S,
        0,
    )


def of_queued(scope: QuotaScope, limit: int, nbytes: int) -> Excess:
    """Bytes of requests in flight."""
    fits = nbytes <= limit
    text = (
        f"{_whose(scope)} may have {limit} bytes in requests that wait or run, and has {scope.queued}: there is no room"
        f" for {nbytes} more"
        if fits
        else f"{nbytes} bytes in one request are more than the {limit} bytes that {_whose(scope)} may have in requests"
        " that wait or run: the request can never be admitted, a smaller one can"
    )
    return Excess(
        text,
        BUSY_RETRY_S if fits else inf,
        _policy(scope, "queued-bytes"),
        limit,
        limit - scope.queued,
        BUSY_RETRY_S,
        0,
    )


def of_day(scope: QuotaScope, kind: int, cost: int, limit: int, ends_s: float) -> Excess:
    """A total of the day, which ends in so many seconds."""
    what = WHAT[kind]
    used = scope.day[kind]
    if cost > limit:
        text = (
            f"{cost} {what} in one request are more than the {limit} {what} that {_whose(scope)} may send in a day: the"
            " request can never be admitted, a smaller one can"
        )
    elif kind == BYTES or cost > 1:
        text = (
            f"{_whose(scope)} may send {limit} {what} a day (UTC), and has sent {used} today: there is no room for"
            f" {cost} more"
        )
    else:
        text = f"{_whose(scope)} may send {limit} {what} a day (UTC), and has sent {used} today"
    return Excess(
        text,
        inf if cost > limit else ends_s,
        _policy(scope, f"{what}-per-day"),
        limit,
        limit - used,
        ends_s,
        86_400,
    )


def _whose(scope: QuotaScope) -> str:
    if scope.pattern == ALL_MODELS:
        return f"tenant '{scope.tenant}'"
    return f"tenant '{scope.tenant}', for models '{scope.pattern}',"


def _policy(scope: QuotaScope, name: str) -> str:
    return name if scope.pattern == ALL_MODELS else f"{name}-of-models"


def _number(value: float) -> str:
    return f"{value:.15g}"
