"""The form of API keys, and their secrets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.access.api_keys import hash_secret, is_secret, make_key, parse_key

FORM = re.compile(r"psk_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}")


def test_a_new_key_has_the_form_and_its_own_secret() -> None:
    keys = [make_key() for _ in range(50)]
    assert all(FORM.fullmatch(key.text) for key in keys)
    assert len({key.id for key in keys}) == len({key.salt for key in keys}) == 50
    for key in keys:
        parsed = parse_key(key.text)
        assert parsed is not None
        assert parsed.id == key.id
        assert is_secret(key.salt, key.hash, parsed.secret)
        assert not is_secret(key.salt, key.hash, parsed.secret[:-1] + "!")


def test_the_same_secret_has_another_hash_with_another_salt() -> None:
    assert hash_secret(b"a" * 16, "s" * 43) != hash_secret(b"b" * 16, "s" * 43)


def test_nothing_of_the_secret_is_kept_or_shown() -> None:
    key = make_key()
    parsed = parse_key(key.text)
    assert parsed is not None
    for shown in (repr(key), str(key), repr(parsed), f"{parsed}"):
        assert parsed.secret not in shown
    assert parsed.secret.encode() not in key.hash + key.salt


@given(st.integers(min_value=4, max_value=63), st.sampled_from("0aZ_-é "))
def test_a_mistyped_key_is_told_from_others(position: int, character: str) -> None:
    text = make_key().text
    changed = text[:position] + character + text[position + 1 :]
    assert (parse_key(changed) is None) == (changed != text)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: key.lower(),
        lambda key: " " + key,
        lambda key: key.replace("psk_", "sk__"),
        lambda key: key[:14] + "0" + key[15:],
        lambda key: "",
        lambda key: "psk_",
        lambda key: "_" * len(key),
    ],
)
def test_what_has_not_the_form_is_no_key(change) -> None:  # type: ignore[no-untyped-def]
    assert parse_key(change(make_key().text)) is None


@given(st.text())
def test_any_text_is_taken_and_only_keys_are_keys(text: str) -> None:
    assert parse_key(text) is None
