"""Token buckets: never more than was promised, never less, and nothing lost on the way."""

from __future__ import annotations

from fractions import Fraction
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.access.token_bucket import NS_PER_S, TokenBucket

rates = st.one_of(
    st.integers(1, 10**10).map(float),
    st.integers(1, 10**6).map(lambda n: n / 1000),
)
bursts = st.integers(1, 10**10).map(float)
steps = st.lists(st.tuples(st.integers(0, 3 * NS_PER_S), st.integers(1, 10**6)), max_size=60)


def exact(value: float) -> Fraction:
    return Fraction(value).limit_denominator(10**6)


def try_to_take(bucket: TokenBucket, tokens: int, now_ns: int) -> bool:
    if bucket.missing_ns(tokens, now_ns):
        return False
    bucket.take(tokens, now_ns)
    return True


@given(rates, bursts, st.integers(0, 10**17), steps)
def test_never_more_than_rate_times_time_and_a_burst(
    rate: float, burst: float, start_ns: int, asked: list[tuple[int, int]]
) -> None:
    bucket, now_ns, taken = TokenBucket(rate, burst), start_ns, []
    for pause_ns, tokens in asked:
        now_ns += pause_ns
        if try_to_take(bucket, tokens, now_ns):
            taken.append((now_ns, tokens))
    # of every window, not only of the whole
    for first, (begin_ns, _) in enumerate(taken):
        total = 0
        for end_ns, tokens in taken[first:]:
            total += tokens
            most = exact(rate) * (end_ns - begin_ns) / NS_PER_S + exact(burst)
            assert total <= most


@given(rates, bursts, st.integers(0, 10**17), steps)
def test_it_never_starves(
    rate: float, burst: float, start_ns: int, asked: list[tuple[int, int]]
) -> None:
    """Who waits for as long as he is told gets what he asked for, and not a nanosecond earlier."""
    bucket, now_ns = TokenBucket(rate, burst), start_ns
    for pause_ns, tokens in asked:
        now_ns += pause_ns
        wait_ns = bucket.missing_ns(tokens, now_ns)
        if wait_ns == inf:
            assert tokens > exact(burst)
            continue
        if wait_ns:
            assert bucket.missing_ns(tokens, now_ns + int(wait_ns) - 1) > 0
        now_ns += int(wait_ns)
        assert try_to_take(bucket, tokens, now_ns)


@given(st.integers(1, 1000).map(lambda n: n / 7), st.integers(0, 10**17))
def test_it_does_not_drift(rate: float, start_ns: int) -> None:
    """Somebody who takes each token at once has in the end as many as the rate says, to the token."""
    bucket, now_ns, taken = TokenBucket(rate, 1), start_ns, 0
    for _ in range(300):
        now_ns += int(bucket.missing_ns(1, now_ns))
        bucket.take(1, now_ns)
        taken += 1
    # of each wait at most a nanosecond is lost to rounding up, and none of them is added to the next
    elapsed = Fraction(now_ns - start_ns, NS_PER_S)
    assert taken <= exact(rate) * elapsed + 1
    assert taken >= exact(rate) * elapsed + 1 - exact(rate) * Fraction(300, NS_PER_S)


@given(rates, bursts, rates, bursts, st.integers(0, 10**6), st.integers(0, NS_PER_S))
def test_a_change_keeps_what_was_taken(
    rate: float, burst: float, new_rate: float, new_burst: float, tokens: int, pause_ns: int
) -> None:
    bucket = TokenBucket(rate, burst)
    bucket.take(tokens, 0)
    before = bucket.taken(pause_ns)
    bucket.change(new_rate, new_burst, pause_ns)
    assert bucket.taken(pause_ns) >= before * (1 - 1e-12)
    assert bucket.taken(pause_ns) == pytest.approx(before, abs=1e-6)
    # and there and back is no refill either
    bucket.change(rate, burst, pause_ns)
    assert bucket.taken(pause_ns) >= before * (1 - 1e-12)


def test_more_than_the_burst_is_never_there() -> None:
    assert TokenBucket(1000, 10).missing_ns(11, 0) == inf
    assert TokenBucket(1000, 10).missing_ns(10, 0) == 0


def test_it_is_full_after_a_rest() -> None:
    bucket = TokenBucket(10, 5)
    bucket.take(5, 0)
    assert bucket.remaining(0) == 0
    assert bucket.empty_ns(0) == NS_PER_S // 2
    assert bucket.missing_ns(1, 0) == NS_PER_S // 10
    assert bucket.remaining(NS_PER_S) == 5
