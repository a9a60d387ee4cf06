"""API keys: who is let in as whom, and who is not."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.access import api_key_auth
from penstock.access.api_key_auth import MISTYPED, REFUSED, ApiKeyAuthenticator
from penstock.access.api_keys import make_key, parse_key
from penstock.access.credentials import Credentials
from penstock.access.principal import Principal
from penstock.access.tenants import TenantStore
from penstock.errors import Unauthenticated, Unavailable


class Door:
    """A store with one tenant and one key, and who asks it."""

    def __init__(self, store: TenantStore, clock: Any) -> None:
        self.store = store
        self.auth = ApiKeyAuthenticator(store, clock)
        self._now = 0.0
        store.create("a")
        self.made = store.keys.create("a", roles=("viewer",), models=("d*",))
        self.look()

    def look(self) -> None:
        self._now += 1
        self.auth.refresh(self._now)

    def ask(self, text: str | None = None) -> Principal | None:
        key = (self.made.text if text is None else text).encode()
        return self.auth.authenticate(Credentials(api_key=key))

    def refused(self, text: str | None = None) -> str:
        with pytest.raises(Unauthenticated) as raised:
            self.ask(text)
        return str(raised.value)


@pytest.fixture
def door(store: TenantStore, clock: Any) -> Door:
    return Door(store, clock)


def test_a_key_says_who_that_is(door: Door, clock: Any) -> None:
    assert door.ask() == Principal(
        id=f"key:psk_{door.made.key.id}",
        tenant="a",
        roles=("viewer",),
        kind="api_key",
        models=("d*",),
        expires_at=clock.now + 43_200,
    )


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {} "])
def test_it_may_come_as_a_bearer(door: Door, form: str) -> None:
    value = form.format(door.made.text).encode()
    assert door.auth.authenticate(Credentials(authorization=value)) == door.ask()


@pytest.mark.parametrize(
    "value", ["", "Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "Basic dXNlcjpwYXNz", "psk_x", "Bearer "]
)
def test_other_credentials_are_for_others(door: Door, value: str) -> None:
    assert door.auth.authenticate(Credentials(authorization=value.encode())) is None


def test_a_mistyped_key_is_told(door: Door) -> None:
    assert door.refused(door.made.text[:-1]) == MISTYPED
    assert door.refused("secret") == MISTYPED
    assert door.refused("psk_é") == MISTYPED


def test_whatever_else_is_wrong_is_not_told(door: Door, clock: Any) -> None:
    keys = door.store.keys
    assert door.refused(make_key().text) == REFUSED
    revoked, short = keys.create("a"), keys.create("a", lifetime_s=5)
    keys.revoke("a", revoked.key.id)
    clock.now += 5
    door.look()
    assert door.refused(revoked.text) == REFUSED
    assert door.refused(short.text) == REFUSED
    door.store.change("a", disabled=True)
    door.look()
    assert door.refused() == REFUSED
    door.store.change("a", disabled=False)
    door.look()
    assert door.ask()
    door.store.delete("a")
    door.look()
    assert door.refused() == REFUSED


def test_the_secret_of_another_key_is_wrong(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_key()
    parsed = parse_key(other.text)
    assert parsed is not None
    theirs = parsed._replace(id=door.made.key.id)
    monkeypatch.setattr(api_key_auth, "parse_key", lambda text: theirs)
    assert door.refused() == REFUSED


def test_a_key_that_nobody_has_is_compared_too(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def watched(salt: bytes, expected: bytes, secret: str) -> bool:
        compared.append(salt)
        # even if it were right: nobody is nobody
        return False

    monkeypatch.setattr(api_key_auth, "is_secret", watched)
    assert door.refused(make_key().text) == REFUSED
    assert door.refused() == REFUSED
    assert len(compared) == 2
    assert compared[1] == door.made.key.salt != compared[0]


def test_a_rotated_key_works_until_the_overlap_is_over(door: Door, clock: Any) -> None:
    new = door.store.keys.rotate("a", door.made.key.id, overlap_s=60)
    door.look()
    clock.now += 59
    old, fresh = door.ask(), door.ask(new.text)
    assert old is not None and fresh is not None
    assert old.expires_at == clock.now + 1
    assert fresh.roles == old.roles
    clock.now += 1
    assert door.refused() == REFUSED
    assert door.ask(new.text)


def test_a_new_generation_comes_with_a_change_only(door: Door) -> None:
    before = door.auth.generation
    door.look()
    assert door.auth.generation == before
    door.store.keys.create("a")
    door.look()
    assert door.auth.generation != before


def test_the_day_of_the_last_use_is_written_in_groups(door: Door, clock: Any) -> None:
    other = door.store.keys.create("a")
    idle = door.store.keys.create("a")
    door.look()
    for _ in range(3):
        door.ask()
        door.ask(other.text)
    assert {key.last_used_day for key in door.store.read().keys.values()} == {0}
    door.auth.close()
    days = {key.id: key.last_used_day for key in door.store.read().keys.values()}
    assert days == {door.made.key.id: 20_000, other.key.id: 20_000, idle.key.id: 0}
    clock.now += 86_400
    door.ask()
    # it is time: another thread writes
    door.auth.refresh(1e6)
    door.auth.close()
    assert door.store.read().keys[door.made.key.id].last_used_day == 20_001


def test_nobody_is_refused_when_the_last_use_can_not_be_written(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(days: object) -> None:
        raise Unavailable("no room")

    monkeypatch.setattr(door.store.keys, "note_used", fail)
    door.ask()
    door.auth.close()
    assert caplog.messages == ["when API keys were last used could not be written: no room"]
