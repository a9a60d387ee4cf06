"""Hashes with a key."""

from __future__ import annotations

import pytest

from captured import KEY
from penstock.capture.redaction import Redaction
from penstock.errors import ConfigError


def hashing(key: bytes = KEY) -> Redaction:
    redaction = Redaction("hash", lambda: key)
    redaction.refresh()
    return redaction


def test_tenants_by_name_or_not_at_all() -> None:
    assert Redaction("name").tenant("team-a") == "team-a"
    assert Redaction("none").tenant("team-a") is None


def test_hashes_tell_the_same_from_others_and_nothing_else() -> None:
    one = hashing()
    assert one.tensor(b"alice") == one.tensor(memoryview(b"alice")) != one.tensor(b"bob")
    # a tensor that holds the tenant's name does not tell which one it is
    assert one.tenant("alice") != one.tensor(b"alice")
    assert hashing(b"another key, as long").tensor(b"alice") != one.tensor(b"alice")
    assert len(one.tensor(b"")) == 64


def test_a_new_key_is_taken_with_the_next_look() -> None:
    key = KEY
    redaction = Redaction("hash", lambda: key)
    redaction.refresh()
    before = redaction.tensor(b"x")
    key = KEY[::-1]
    assert redaction.tensor(b"x") == before
    redaction.refresh()
    assert redaction.tensor(b"x") == hashing(KEY[::-1]).tensor(b"x") != before


def test_nothing_is_hashed_without_a_key_or_with_one_that_could_be_guessed() -> None:
    with pytest.raises(ConfigError, match="there is no key"):
        Redaction("hash").tenant("a")
    with pytest.raises(ConfigError, match="the key has 5 bytes, expected 16"):
        Redaction("hash", lambda: b"short").refresh()
