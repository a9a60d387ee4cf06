"""Limits: what may be set, and what is said of what may not."""

from __future__ import annotations

import math

import pytest

from penstock.access.limits import NAMES, Limits, parse_limits
from penstock.errors import InvalidRequest


def test_nothing_given_is_unlimited() -> None:
    assert parse_limits({}) == Limits()
    assert Limits().given() == {}
    assert parse_limits(dict.fromkeys(NAMES)) == Limits()


def test_each_name_is_a_limit() -> None:
    values = {name: position + 1 for position, name in enumerate(NAMES)}
    limits = parse_limits(values)
    assert limits.given() == values
    assert isinstance(limits.requests_per_s, float)
    assert isinstance(limits.in_flight, int)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("requests", 1, "unknown limit 'requests', expected one of requests_per_s, "),
        ("requests_per_s", 0, "requests_per_s: expected a number above 0, up to 2^53, got '0'"),
        ("requests_per_s", -1.5, "got '-1.5'"),
        ("rows_per_s", math.nan, "got 'nan'"),
        ("rows_per_s", math.inf, "got 'inf'"),
        ("bytes_per_s", True, "got 'True'"),
        ("bytes_per_s", "12", "got '12'"),
        ("bytes_per_s", 2**53 + 2, "up to 2^53"),
        ("in_flight", 1.5, "in_flight: expected a whole number from 1 to 2^53, got '1.5'"),
        ("queued_bytes", 0, "queued_bytes: expected a whole number from 1"),
        ("rows_per_day", 10**400, "rows_per_day: expected a whole number from 1"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: object, expected: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_limits({name: value})
    assert expected in str(raised.value)


def test_a_burst_needs_its_rate() -> None:
    with pytest.raises(InvalidRequest, match="burst_rows has no effect without rows_per_s"):
        parse_limits({"burst_rows": 5, "requests_per_s": 5})
    with pytest.raises(InvalidRequest, match="burst_rows: expected a number from 1"):
        parse_limits({"burst_rows": 0.5, "rows_per_s": 5})
