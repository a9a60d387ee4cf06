"""Quotas of one server: what passes, what is refused in which words, and that nothing is charged twice or for ever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.access.limits import Limits
from penstock.access.quotas import QuotaKeeper
from penstock.access.token_bucket import NS_PER_S
from penstock.access.usage import SECONDS_PER_DAY, UsageRow
from penstock.errors import QuotaExceeded

DAY = 20_000
NOON = DAY * SECONDS_PER_DAY + SECONDS_PER_DAY / 2


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.ns = 5 * NS_PER_S
        self.wall_s = NOON

    def wall(self) -> float:
        return self.wall_s

    def wait(self, seconds: float) -> None:
        self.ns += int(seconds * NS_PER_S)
        self.wall_s += seconds


class Quotas:
    """A keeper and its clock."""

    def __init__(self, limits: Mapping[tuple[str, str], Limits]) -> None:
        self.clock = Clock()
        self.keeper = QuotaKeeper(self.clock.ns, self.clock.wall)
        self.set(limits)

    def set(self, limits: Mapping[tuple[str, str], Limits]) -> None:
        self.keeper.set_limits(limits, self.clock.ns)

    def admit(self, tenant: str = "acme", model: str = "m", rows: int = 1, nbytes: int = 10) -> Any:
        return self.keeper.of(tenant).admit(model, rows, nbytes, self.clock.ns)

    def refused(self, **request: Any) -> QuotaExceeded:
        with pytest.raises(QuotaExceeded) as raised:
            self.admit(**request)
        return raised.value


def of(pattern: str = "*", **limits: float) -> dict[tuple[str, str], Limits]:
    return {("acme", pattern): Limits(**limits)}  # type: ignore[arg-type]


def test_a_tenant_without_limits_is_only_counted() -> None:
    quotas = Quotas(of(requests_per_s=1))
    for _ in range(100):
        assert quotas.admit("other", rows=2) is None
    assert quotas.keeper.usage.of("other", "m").counts == (100, 200, 1000)


def test_a_rate_and_its_burst() -> None:
    quotas = Quotas(of(requests_per_s=10, burst_requests=3))
    for _ in range(3):
        quotas.admit()
    error = quotas.refused()
    assert str(error) == "tenant 'acme' may send 10 requests/s (3 at once), and has sent as many"
    assert error.retry_after_s == pytest.approx(0.1)
    assert dict(error.limits) == {
        "ratelimit-policy": '"requests-per-second";q=3;w=1',
        "ratelimit": '"requests-per-second";r=0;t=1',
        "ratelimit-limit": "3",
        "ratelimit-remaining": "0",
        "ratelimit-reset": "1",
    }
    quotas.clock.wait(0.1)
    quotas.admit()
    quotas.refused()


def test_who_waits_as_told_gets_through() -> None:
    quotas = Quotas(of(rows_per_s=7, burst_rows=20))
    quotas.admit(rows=20)
    error = quotas.refused(rows=13)
    assert error.retry_after_s is not None
    quotas.clock.ns += int(error.retry_after_s * NS_PER_S) + 1
    quotas.admit(rows=13)


@pytest.mark.parametrize(
    ("limits", "request_", "text"),
    [
        (
            {"rows_per_s": 5, "burst_rows": 8},
            {"rows": 9},
            "9 rows in one request are more than the 8 rows that tenant 'acme' may send at once: the request can"
            " never be admitted, a smaller one can",
        ),
        (
            {"queued_bytes": 99},
            {"nbytes": 100},
            "100 bytes in one request are more than the 99 bytes that tenant 'acme' may have in requests that wait or"
            " run: the request can never be admitted, a smaller one can",
        ),
        (
            {"bytes_per_day": 99},
            {"nbytes": 100},
            "100 bytes in one request are more than the 99 bytes that tenant 'acme' may send in a day: the request can"
            " never be admitted, a smaller one can",
        ),
    ],
)
def test_what_can_never_pass_is_told_so(
    limits: dict[str, Any], request_: dict[str, Any], text: str
) -> None:
    error = Quotas(of(**limits)).refused(**request_)
    assert str(error) == text
    assert error.retry_after_s is None
    # nor is it a hint that another limit gives a time
    assert error.limits


def test_requests_in_flight() -> None:
    quotas = Quotas(of(in_flight=2))
    first, second = quotas.admit(), quotas.admit()
    error = quotas.refused()
    assert str(error) == "tenant 'acme' may have 2 requests in flight, and has as many"
    assert error.retry_after_s == 0.1
    first.release()
    # a second release of the same lease is none
    first.release()
    third = quotas.admit()
    quotas.refused()
    second.release()
    third.release()
    assert quotas.keeper.in_flight("acme") == 0


def test_queued_bytes() -> None:
    quotas = Quotas(of(queued_bytes=100))
    first = quotas.admit(nbytes=60)
    assert str(quotas.refused(nbytes=41)) == (
        "tenant 'acme' may have 100 bytes in requests that wait or run, and has 60: there is no room for 41 more"
    )
    second = quotas.admit(nbytes=40)
    first.release()
    second.release()
    quotas.admit(nbytes=100).release()


def test_all_patterns_that_fit_apply() -> None:
    quotas = Quotas(
        {
            **of(requests_per_s=100, burst_requests=3),
            **of("bert-*", requests_per_s=100, burst_requests=2),
        }
    )
    quotas.admit(model="bert-a")
    quotas.admit(model="bert-b")
    error = quotas.refused(model="bert-a")
    assert str(error) == (
        "tenant 'acme', for models 'bert-*', may send 100 requests/s (2 at once), and has sent as many"
    )
    assert dict(error.limits)["ratelimit"].startswith('"requests-per-second-of-models"')
    quotas.admit(model="resnet")
    assert "tenant 'acme' may" in str(quotas.refused(model="resnet"))


def test_a_refusal_takes_nothing_of_any_limit() -> None:
    quotas = Quotas(
        {
            **of(
                requests_per_s=1,
                burst_requests=5,
                rows_per_s=1,
                burst_rows=50,
                in_flight=9,
                queued_bytes=1000,
                requests_per_day=5,
            ),
            **of("m", bytes_per_s=1, burst_bytes=10),
        }
    )
    quotas.admit(nbytes=10)
    for _ in range(50):
        quotas.refused(nbytes=10)
    # another model has all that is left of the others
    leases = [quotas.admit(model="other") for _ in range(4)]
    assert quotas.keeper.in_flight("acme") == 5
    assert all(leases)
    assert quotas.keeper.usage.of("acme", "m").refused == 50
    assert quotas.keeper.usage.of("acme", "m").requests == 1


def test_the_longest_wait_is_told() -> None:
    quotas = Quotas(of(requests_per_s=10, burst_requests=1, rows_per_s=1, burst_rows=4))
    quotas.admit(rows=4)
    error = quotas.refused(rows=3)
    assert "rows/s" in str(error)
    assert error.retry_after_s == pytest.approx(3)


def test_totals_of_a_day_begin_anew_at_midnight() -> None:
    quotas = Quotas(of(rows_per_day=10))
    quotas.admit(rows=8)
    error = quotas.refused(rows=3)
    assert str(error) == (
        "tenant 'acme' may send 10 rows a day (UTC), and has sent 8 today: there is no room for 3 more"
    )
    assert error.retry_after_s == SECONDS_PER_DAY / 2
    assert dict(error.limits)["ratelimit-policy"] == '"rows-per-day";q=10;w=86400'
    quotas.clock.wait(SECONDS_PER_DAY / 2)
    quotas.admit(rows=3)
    assert quotas.keeper.usage.today("acme", "*") == [1, 3, 10]
    rows = {row.day: row for row in quotas.keeper.usage.take()}
    assert rows[DAY].rows == 8
    assert rows[DAY + 1].rows == 3


def test_a_clock_set_back_brings_no_day_back() -> None:
    quotas = Quotas(of(requests_per_day=1))
    quotas.admit()
    quotas.clock.wall_s -= SECONDS_PER_DAY
    quotas.clock.ns += 100 * NS_PER_S
    quotas.refused()
    assert quotas.keeper.usage.day == DAY


def test_a_clock_that_was_wrong_by_far_is_put_right() -> None:
    """Else a tenant would be locked out until the wrong day comes."""
    quotas = Quotas(of(requests_per_day=1))
    quotas.clock.wait(400 * SECONDS_PER_DAY)
    quotas.admit()
    quotas.refused()
    quotas.clock.wall_s -= 400 * SECONDS_PER_DAY
    quotas.clock.ns += NS_PER_S
    quotas.admit()
    assert quotas.keeper.usage.day == DAY
    assert {row.day: row.requests for row in quotas.keeper.usage.take()} == {DAY: 1, DAY + 400: 1}


def test_totals_of_a_day_survive_a_restart() -> None:
    first = Quotas(of(requests_per_day=5))
    for model in ("a", "a", "b"):
        first.admit(model=model)
    kept = first.keeper.usage.take()
    second = Quotas(of(requests_per_day=5))
    yesterday = UsageRow("acme", "a", DAY - 1, 4, 4, 4)
    second.keeper.restore([*kept, yesterday])
    second.admit()
    second.admit()
    second.refused()
    # what was kept already is not handed on again
    assert sum(row.requests for row in second.keeper.usage.take()) == 2


def test_what_could_not_be_kept_comes_again() -> None:
    quotas = Quotas({})
    quotas.admit(rows=2)
    book = quotas.keeper.usage
    rows = book.take()
    quotas.admit(rows=3)
    assert len(rows) == 1
    book.put_back(rows)
    (row,) = book.take()
    assert (row.requests, row.rows, row.nbytes) == (2, 5, 20)
    assert book.take() == []


def test_a_limit_set_at_noon_counts_the_morning() -> None:
    quotas = Quotas({})
    for _ in range(3):
        quotas.admit()
    quotas.set(of(requests_per_day=4))
    quotas.admit()
    quotas.refused()


def test_a_changed_limit_is_no_refill() -> None:
    quotas = Quotas(of(requests_per_s=0.001, burst_requests=10))
    for _ in range(10):
        quotas.admit()
    quotas.set(of(requests_per_s=0.001, burst_requests=12))
    quotas.admit()
    quotas.admit()
    quotas.refused()
    # taken away and set again: no refill either
    quotas.set({})
    quotas.admit()
    quotas.set(of(requests_per_s=0.001, burst_requests=12))
    quotas.refused()


def test_requests_in_flight_outlive_a_change_of_limits() -> None:
    quotas = Quotas(of(in_flight=2))
    leases = [quotas.admit(), quotas.admit()]
    quotas.set({})
    quotas.set(of(in_flight=1))
    quotas.refused()
    for lease in leases:
        lease.release()
    lease = quotas.admit()
    quotas.refused()
    lease.release()
    assert quotas.keeper.in_flight("acme") == 0


def test_limits_of_other_tenants_are_none_of_ours() -> None:
    quotas = Quotas({**of(requests_per_s=1), ("other", "*"): Limits(requests_per_s=1000)})
    quotas.admit()
    quotas.refused()
    for _ in range(1000):
        quotas.admit("other")


def test_a_change_of_something_else_costs_nothing() -> None:
    quotas = Quotas(of(requests_per_s=1))
    generation = quotas.keeper.generation
    quotas.set(of(requests_per_s=1))
    assert quotas.keeper.generation == generation
    quotas.set(of(requests_per_s=2))
    assert quotas.keeper.generation == generation + 1
    quotas.set({})
    assert quotas.keeper.generation == generation + 2
    quotas.set({})
    assert quotas.keeper.generation == generation + 2


costs = st.tuples(st.integers(1, 40), st.integers(0, 400), st.integers(0, NS_PER_S // 2))


@given(st.lists(costs, max_size=80), st.integers(1, 30), st.integers(1, 3))
def test_whatever_comes_no_limit_is_exceeded(
    asked: list[tuple[int, int, int]], rate: int, flying: int
) -> None:
    quotas = Quotas(
        {**of(rows_per_s=rate, in_flight=flying), **of("m", bytes_per_s=500, bytes_per_day=5000)}
    )
    start_ns, rows_sent, bytes_sent, leases = quotas.clock.ns, 0, 0, []
    for rows, nbytes, pause_ns in asked:
        quotas.clock.ns += pause_ns
        try:
            leases.append(quotas.admit(rows=rows, nbytes=nbytes))
        except QuotaExceeded:
            if leases:
                leases.pop().release()
            continue
        rows_sent += rows
        bytes_sent += nbytes
        assert len(leases) <= flying
        elapsed_s = (quotas.clock.ns - start_ns) / NS_PER_S
        assert rows_sent <= rate * elapsed_s + rate + 1e-6
        assert bytes_sent <= min(5000, 500 * elapsed_s + 500 + 1e-6)
    assert quotas.keeper.in_flight("acme") == len(leases)
