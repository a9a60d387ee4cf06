"""Who goes to the candidate is the same everywhere and always, and as many as the share says."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.rollouts.split import (
    WHOLE,
    share_of,
    share_of_percent,
    share_of_unit,
    unit_of,
)

TEXTS = st.text(max_size=20)


@settings(max_examples=50)
@given(TEXTS, TEXTS, TEXTS)
def test_place_is_the_same_every_time_and_within_the_whole(
    tenant: str, request_id: str, salt: str
) -> None:
    unit = unit_of(tenant, request_id, salt)
    assert 0 < unit < 1 << 63
    assert unit == unit_of(tenant, request_id, salt)
    assert 0 <= share_of(tenant, request_id, salt) == share_of_unit(unit) < WHOLE


@settings(max_examples=50)
@given(st.tuples(TEXTS, TEXTS, TEXTS), st.tuples(TEXTS, TEXTS, TEXTS))
def test_different_words_are_different_units(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (unit_of(*one) == unit_of(*other)) == (one == other)


def test_place_survives_restarts() -> None:
    assert share_of("acme", "request-1") == 9697
    assert share_of("acme", "request-1", "digits/4") == 9687


def test_places_are_even_and_other_salts_give_others() -> None:
    for salt in ("", "digits/4"):
        places = [share_of("acme", str(number), salt) for number in range(5_000)]
        for percent in (1, 10, 50):
            share = share_of_percent(percent)
            inside = sum(place < share for place in places)
            # five standard deviations of a fair split; the hash is always the same
            deviation = (5_000 * percent / 100 * (1 - percent / 100)) ** 0.5
            assert abs(inside - 50 * percent) < 5 * deviation
    first = {n for n in range(5_000) if share_of("acme", str(n)) < 100}
    other = {n for n in range(5_000) if share_of("acme", str(n), "digits/4") < 100}
    assert len(first & other) < 10


def test_percent_as_share() -> None:
    assert [share_of_percent(percent) for percent in (0.01, 1, 99.99, 100)] == [1, 100, 9999, WHOLE]
