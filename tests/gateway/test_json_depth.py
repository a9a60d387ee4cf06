"""The nesting limit: exact, blind to strings, and linear in time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest
from penstock.gateway.json_depth import MAX_JSON_DEPTH, check_json_depth


def nested(levels: int, inner: bytes = b"") -> bytes:
    return b"[" * levels + inner + b"]" * levels


def test_the_limit_is_exact() -> None:
    check_json_depth(nested(MAX_JSON_DEPTH))
    with pytest.raises(InvalidRequest, match="deeper than 100"):
        check_json_depth(nested(MAX_JSON_DEPTH + 1))


def test_objects_count_too() -> None:
    with pytest.raises(InvalidRequest):
        check_json_depth(b'{"a":[' * 51 + b"]}" * 51)


def test_many_shallow_lists_pass() -> None:
    check_json_depth(b"[" + b"[1,2]," * 100_000 + b"{}]")


@pytest.mark.parametrize(
    "text", ["[" * 200, "]" * 200, '"' + "[" * 200, "\\" + "[" * 200, '\\"[' * 99]
)
def test_brackets_in_strings_do_not_count(text: str) -> None:
    check_json_depth(json.dumps([text, "x"] * 3).encode())
    with pytest.raises(InvalidRequest):
        check_json_depth(nested(MAX_JSON_DEPTH + 1, json.dumps(text).encode()))


def test_depth_is_carried_over_chunks() -> None:
    """The scan goes by chunks of 1 MiB of brackets and quotes."""
    filler = b"[]," * 600_000
    check_json_depth(nested(99, filler))
    with pytest.raises(InvalidRequest):
        check_json_depth(nested(60, filler + nested(41) + b"," + filler))


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 4_000_000,
        b'[""' * 1_000_000,
        b'"\\"\\"' * 1_000_000,
        b"[" * 200 + b'"' + b"\\" * 4_000_001,
    ],
)
def test_hostile_texts_take_no_longer_than_others(text: bytes) -> None:
    """Quadratic time on any of these would run into the test's time-out."""
    try:
        check_json_depth(text)
    except InvalidRequest:
        assert text.count(b"[") > MAX_JSON_DEPTH


json_values = st.recursive(
    st.none() | st.text('[]{}"\\a', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(json_values, st.integers(90, 110))
def test_depth_agrees_with_the_parsed_value(value: object, wrapped: int) -> None:
    text = nested(wrapped, json.dumps(value).encode())
    if wrapped + depth_of(value) > MAX_JSON_DEPTH:
        with pytest.raises(InvalidRequest):
            check_json_depth(text)
    else:
        check_json_depth(text)
