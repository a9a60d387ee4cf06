"""The `padding.…` parameters of a configuration."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.padding_config import CutOutput, PaddedInput, Padding, dimension_of, padding_of

pytestmark = pytest.mark.extension("padded_buckets")


def config(**texts: str) -> dict[str, Any]:
    """A configuration with these parameters, `__` for a dot, below `padding.`."""
    return {
        "parameters": {
            f"padding.{key.replace('__', '.')}": {"string_value": text}
            for key, text in texts.items()
        }
    }


def test_without_any_nothing_is_padded() -> None:
    assert (
        padding_of({}) == padding_of({"parameters": {"other": {"string_value": "1"}}}) == Padding()
    )


def test_all_keys() -> None:
    padding = padding_of(
        config(
            a__b__buckets="16,32, 64",
            a__b__value="-1.5",
            a__b__dimension="1",
            a__b__mask="M",
            Y__cut_to="a.b",
            Y__cut_dimension="2",
            Z__cut_to="a.b",
        )
    )
    assert padding.inputs == (PaddedInput("a.b", (16, 32, 64), 1, -1.5, "M"),)
    assert padding.outputs == (CutOutput("Y", "a.b", 2), CutOutput("Z", "a.b"))
    assert padding.masks == ("M",)


def test_large_integers_are_not_rounded() -> None:
    (given,) = padding_of(config(X__buckets="8", X__value=str(2**63 - 1))).inputs
    assert given.value == 2**63 - 1
    assert isinstance(given.value, int)


@given(st.integers(0, 2**20))
def test_powers_of_two(length: int) -> None:
    (given,) = padding_of(config(X__buckets="powers_of_two")).inputs
    size = given.size(length)
    assert size & (size - 1) == 0
    assert size >= length
    assert size == 1 or size < 2 * length


@pytest.mark.parametrize(
    ("length", "size"), [(0, 4), (4, 4), (5, 6), (6, 6), (7, 16), (16, 16), (17, 17), (900, 900)]
)
def test_what_is_longer_than_all_buckets_stays_as_it_is(length: int, size: int) -> None:
    assert PaddedInput("X", (4, 6, 16)).size(length) == size


def test_the_dimension_is_one_of_any_size() -> None:
    assert dimension_of([3, -1], None) == 1
    assert dimension_of([-1, -1], None) is None
    assert dimension_of([-1, -1], 1) == 1
    assert dimension_of([3, -1], 0) is None
    assert dimension_of([-1], 5) is None


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"X__buckets": ""}, "'padding.X.buckets'] is ''; expected ascending sizes with commas"),
        ({"X__buckets": "8, 4"}, "'padding.X.buckets'] is '8, 4'; expected ascending sizes"),
        ({"X__buckets": "4, 4"}, "'padding.X.buckets'] is '4, 4'; expected ascending sizes"),
        ({"X__buckets": "0, 4"}, "'padding.X.buckets'] is '0, 4'; expected ascending sizes"),
        ({"X__buckets": "4, x"}, "'padding.X.buckets'] is '4, x'; expected ascending sizes"),
        ({"X__buckets": "9" * 10}, "'padding.X.buckets'] is '9999999999'; expected ascending"),
        ({"X__buckets": "4", "X__value": "x"}, "'padding.X.value'] is 'x'; expected a number"),
        (
            {"X__buckets": "4", "X__dimension": "-1"},
            "'padding.X.dimension'] is '-1'; expected an index into the tensor's dims",
        ),
        (
            {"X__mask": "M"},
            "'padding.X.mask'] is given; expected padding.X.buckets beside it",
        ),
        (
            {"Y__cut_dimension": "1"},
            "'padding.Y.cut_dimension'] is given; expected padding.Y.cut_to beside it",
        ),
        ({"X__buckets": "4", "X__mask": ""}, "'padding.X.mask'] is empty; expected the name of an"),
        (
            {"X__bucket": "4"},
            "'padding.X.bucket'] is not known; expected padding.TENSOR. and one of buckets, ",
        ),
        ({"buckets": "4"}, "'padding.buckets'] is not known; expected padding.TENSOR. and one of"),
    ],
)
def test_wrong_ones(texts: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        padding_of(config(**texts))
    assert str(caught.value).startswith(f"parameters[{expected}")
