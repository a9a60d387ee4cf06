"""The store of tenants: changes, and what they leave."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from penstock.access import key_table
from penstock.access.key_table import KEPT_S
from penstock.access.limits import Limits
from penstock.access.tenant_records import Tenant, TenantSnapshot, Usage
from penstock.access.tenants import USAGE_DAYS, TenantStore
from penstock.errors import AlreadyExists, InvalidRequest, NotFound

TODAY = 20_000


def test_a_new_store_is_empty(store: TenantStore) -> None:
    assert store.snapshot == TenantSnapshot(revision=1)
    assert store.read() == store.snapshot
    assert store.usage() == ()


def test_tenants_are_created_changed_and_deleted(store: TenantStore, clock: Any) -> None:
    made = store.create("team-a", models=("digits", "emb*", "digits"), weight=2)
    assert made == Tenant(name="team-a", created_at=clock.now, weight=2, models=("digits", "emb*"))
    assert store.read().tenants == {"team-a": made}
    assert store.change("team-a", disabled=True).disabled
    assert store.read().disabled("team-a")
    assert not store.change("team-a", disabled=False).disabled
    assert store.change("team-a", weight=0.5).weight == 0.5
    assert store.read().weights == {"team-a": 0.5}
    assert store.change("team-a", weight=None).weight is None
    assert store.read().weights == {}
    assert store.change("team-a", models=("*",)).models == ("*",)
    store.delete("team-a")
    assert store.read().tenants == {}
    assert not store.read().disabled("team-a")


def test_a_disabled_tenant_reaches_nothing(store: TenantStore) -> None:
    store.create("a", models=("d*",))
    assert store.read().reach("a") == ("d*",)
    store.change("a", disabled=True)
    assert store.read().reach("a") is None
    # tokens and certificates name tenants that are in no file
    assert store.read().reach("b") == ("*",)


def test_one_name_is_one_tenant(store: TenantStore) -> None:
    store.create("a")
    with pytest.raises(AlreadyExists, match="there is a tenant 'a' already"):
        store.create("a")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a" * 65, "é", "a\n", "../x", "*"])
def test_bad_names_are_refused(store: TenantStore, name: str) -> None:
    with pytest.raises(InvalidRequest, match="a tenant's name has 1 to 64 letters"):
        store.create(name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"weight": 0}, "a weight is a number above 0"),
        ({"weight": math.nan}, "a weight is a number above 0"),
        ({"weight": math.inf}, "up to 1000000; got inf"),
        ({"models": ()}, "expected 1 to 100 patterns of models"),
        ({"models": ("a/b",)}, "no model has a / in its name; got 'a/b'"),
        ({"models": ("a[!]b]", "a[b")}, "expected a ] for each [ of a pattern; got 'a[b'"),
        ({"models": ("a b",)}, "no blanks and no commas; got 'a b'"),
        ({"models": ("",)}, "1 to 256 characters"),
    ],
)
def test_bad_values_are_refused(store: TenantStore, given: Any, expected: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        store.create("a", **given)
    assert expected in str(raised.value)
    assert store.read().tenants == {}


def test_what_is_asked_of_nobody_is_refused(store: TenantStore) -> None:
    for ask in (
        lambda: store.change("x", disabled=True),
        lambda: store.change("x", weight=2),
        lambda: store.change("x", models=("*",)),
        lambda: store.set_limits("x", {"in_flight": 1}),
        lambda: store.clear_limits("x"),
        lambda: store.delete("x"),
        lambda: store.keys.create("x"),
        lambda: store.keys.revoke("x", "y"),
    ):
        with pytest.raises(NotFound, match="there is no tenant 'x'"):
            ask()
    assert store.read().revision == 1


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_kept_but_for_its_secret(store: TenantStore, clock: Any, file: Path) -> None:
    store.create("a")
    made = store.keys.create(
        "a", roles=("user", "viewer"), models=("d*",), label="CI", lifetime_s=60
    )
    assert made.text.startswith(f"psk_{made.key.id}_")
    kept = store.read().keys[made.key.id]
    assert kept == made.key
    assert (kept.roles, kept.models, kept.label) == (("user", "viewer"), ("d*",), "CI")
    assert (kept.created_at, kept.expires_at) == (clock.now, clock.now + 60)
    secret = made.text.split("_")[2]
    store.close()
    for each in file.parent.iterdir():
        assert secret[:20].encode() not in each.read_bytes()
    assert secret not in repr(made) + repr(kept)


def test_keys_are_listed_by_age(store: TenantStore, clock: Any) -> None:
    store.create("a")
    store.create("b")
    ids = []
    for _ in range(3):
        clock.now += 1
        ids.append(store.keys.create("a").key.id)
    store.keys.create("b")
    assert [key.id for key in store.read().keys_of("a")] == ids


def test_rotation_leaves_the_old_key_for_the_overlap(store: TenantStore, clock: Any) -> None:
    store.create("a")
    old = store.keys.create("a", roles=("admin",), models=("x",), label="L", lifetime_s=1000).key
    clock.now += 100
    new = store.keys.rotate("a", old.id, overlap_s=50).key
    assert (new.roles, new.models, new.label) == (old.roles, old.models, old.label)
    # it lives as long as the old one was made for
    assert new.expires_at == clock.now + 1000
    after = store.read().keys[old.id]
    assert after.expires_at == clock.now + 50
    assert after.state(clock.now + 49) == "active"
    assert after.state(clock.now + 50) == "expired"


def test_an_overlap_makes_no_key_live_longer(store: TenantStore, clock: Any) -> None:
    store.create("a")
    old = store.keys.create("a", lifetime_s=10).key
    new = store.keys.rotate("a", old.id, overlap_s=1000, lifetime_s=5).key
    assert store.read().keys[old.id].expires_at == old.expires_at
    assert new.expires_at == clock.now + 5


def test_without_an_overlap_the_old_key_ends_at_once(store: TenantStore, clock: Any) -> None:
    store.create("a")
    old = store.keys.create("a").key
    new = store.keys.rotate("a", old.id, overlap_s=0).key
    assert store.read().keys[old.id].state(clock.now) == "expired"
    assert (new.expires_at, new.state(clock.now)) == (0, "active")


def test_only_keys_that_work_are_rotated(store: TenantStore, clock: Any) -> None:
    store.create("a")
    revoked, short = store.keys.create("a").key, store.keys.create("a", lifetime_s=1).key
    store.keys.revoke("a", revoked.id)
    clock.now += 1
    with pytest.raises(InvalidRequest, match="is revoked: there is nothing to rotate"):
        store.keys.rotate("a", revoked.id, overlap_s=1)
    with pytest.raises(InvalidRequest, match="is expired"):
        store.keys.rotate("a", short.id, overlap_s=1)
    assert len(store.read().keys) == 2


def test_a_key_is_revoked_once(store: TenantStore, clock: Any) -> None:
    store.create("a")
    key = store.keys.create("a").key
    first = store.keys.revoke("a", key.id)
    clock.now += 5
    assert store.keys.revoke("a", key.id) == first
    assert first.state(clock.now) == "revoked"


def test_keys_that_ended_long_ago_are_forgotten(store: TenantStore, clock: Any) -> None:
    store.create("a")
    store.create("b")
    revoked, short = store.keys.create("a").key, store.keys.create("a", lifetime_s=9).key
    theirs, lasting = store.keys.create("b", lifetime_s=9).key, store.keys.create("a").key
    store.keys.revoke("a", revoked.id)
    clock.now += KEPT_S
    recent = store.keys.create("a").key
    assert set(store.read().keys) == {short.id, theirs.id, lasting.id, recent.id}
    clock.now += 10
    last = store.keys.create("a").key
    assert set(store.read().keys) == {theirs.id, lasting.id, recent.id, last.id}


def test_a_tenant_has_only_so_many_keys(
    store: TenantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_table, "MOST_KEYS", 2)
    store.create("a")
    store.create("b")
    key = store.keys.create("a").key
    store.keys.create("b")
    store.keys.rotate("a", key.id, overlap_s=9)
    with pytest.raises(InvalidRequest, match="tenant 'a' has 2 keys, more can't be"):
        store.keys.create("a")
    with pytest.raises(InvalidRequest, match="tenant 'a' has 2 keys, more can't be"):
        store.keys.rotate("a", key.id, overlap_s=9)


def test_a_key_is_of_its_tenant_only(store: TenantStore) -> None:
    store.create("a")
    store.create("b")
    key = store.keys.create("a").key
    for ask in (
        lambda: store.keys.revoke("b", key.id),
        lambda: store.keys.rotate("b", key.id, overlap_s=0),
    ):
        with pytest.raises(NotFound, match="tenant 'b' has no key"):
            ask()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"roles": ()}, "needs 1 to 100 roles; got 0"),
        ({"roles": ("a b",)}, "a role's name has"),
        ({"label": "a\nb"}, "printable characters"),
        ({"label": "a" * 201}, "at most 200"),
        ({"lifetime_s": 0.0}, "lives for more than 0 s"),
        ({"lifetime_s": math.nan}, "lives for more than 0 s"),
        ({"lifetime_s": 1e30}, "up to 100 years"),
    ],
)
def test_bad_keys_are_refused(store: TenantStore, given: Any, expected: str) -> None:
    store.create("a")
    with pytest.raises(InvalidRequest) as raised:
        store.keys.create("a", **given)
    assert expected in str(raised.value)


def test_a_deleted_tenant_leaves_nothing_to_its_namesake(store: TenantStore) -> None:
    store.create("a")
    store.keys.create("a")
    store.set_limits("a", {"in_flight": 3})
    store.add_usage([Usage(tenant="a", model="m", day=TODAY, requests=1)])
    store.delete("a")
    store.create("a")
    now = store.read()
    assert (now.keys, now.limits, store.usage()) == ({}, {}, ())


def test_nobody_gets_in_by_the_name_of_a_deleted_tenant(store: TenantStore) -> None:
    store.create("a")
    store.delete("a")
    assert store.read().reach("a") is None
    store.create("a")
    assert store.read().reach("a") == ("*",)
    store.delete("a")
    assert store.read().reach("a") is None


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_limits_are_set_one_by_one(store: TenantStore) -> None:
    store.create("a")
    store.set_limits("a", {"requests_per_s": 10, "in_flight": 4})
    both = store.set_limits("a", {"requests_per_s": 20.5})
    assert both == Limits(requests_per_s=20.5, in_flight=4)
    store.set_limits("a", {"rows_per_day": 2**53}, "emb*")
    assert store.read().limits == {("a", "*"): both, ("a", "emb*"): Limits(rows_per_day=2**53)}
    assert store.read().limits_of("a")["emb*"].rows_per_day == 2**53
    assert store.set_limits("a", {"in_flight": None}) == Limits(requests_per_s=20.5)


def test_limits_are_cleared(store: TenantStore) -> None:
    store.create("a")
    for pattern in ("*", "x", "y"):
        store.set_limits("a", {"in_flight": 4}, pattern)
    store.clear_limits("a", "x")
    assert set(store.read().limits_of("a")) == {"*", "y"}
    with pytest.raises(NotFound, match="has no limits for the models 'x'"):
        store.clear_limits("a", "x")
    store.clear_limits("a")
    store.clear_limits("a")
    assert store.read().limits == {}


def test_bad_limits_change_nothing(store: TenantStore) -> None:
    store.create("a")
    store.set_limits("a", {"requests_per_s": 10, "burst_requests": 20})
    before = store.read()
    for values, expected in (
        ({"in_flight": 5, "rows": 1}, "unknown limit 'rows'"),
        ({"requests_per_s": None}, "burst_requests has no effect without requests_per_s"),
        ({"in_flight": -1}, "in_flight: expected a whole number"),
    ):
        with pytest.raises(InvalidRequest, match=expected):
            store.set_limits("a", values)
    assert store.read() == before


# ── usage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_usage_adds_up(store: TenantStore) -> None:
    one = Usage(tenant="a", model="m", day=TODAY, requests=1, rows=2, bytes=300)
    other = Usage(tenant="b", model="m", day=TODAY, requests=5)
    store.add_usage([one, other])
    store.add_usage([one, Usage(tenant="a", model="m", day=TODAY - 1, rows=7)])
    assert store.usage("a") == (
        Usage(tenant="a", model="m", day=TODAY - 1, rows=7),
        Usage(tenant="a", model="m", day=TODAY, requests=2, rows=4, bytes=600),
    )
    assert store.usage("a", TODAY) == store.usage("a")[1:]
    assert store.usage() == (*store.usage("a"), other)


def test_usage_is_kept_for_a_year_and_more(store: TenantStore) -> None:
    days = (TODAY - USAGE_DAYS - 1, TODAY - USAGE_DAYS)
    store.add_usage(Usage(tenant="a", model="m", day=day, requests=1) for day in days)
    assert [usage.day for usage in store.usage()] == [TODAY - USAGE_DAYS]


def test_a_tenant_allows_that_its_requests_are_kept(store: TenantStore) -> None:
    store.create("a")
    # nobody has asked it, nor those that are in no file
    assert not store.read().may_keep("a", "digits")
    assert not store.read().may_keep("b", "digits")
    assert store.change("a", captured=("dig*", "x", "dig*")).captured == ("dig*", "x")
    assert store.read().may_keep("a", "digits")
    assert not store.read().may_keep("a", "other")
    # other changes leave it
    store.change("a", weight=2)
    assert store.read().tenants["a"].captured == ("dig*", "x")
    store.change("a", captured=())
    assert not store.read().may_keep("a", "digits")
    with pytest.raises(InvalidRequest, match="no model has a / in its name"):
        store.change("a", captured=("a/b",))
    store.change("a", captured=("*",))
    store.delete("a")
    store.create("a")
    assert not store.read().may_keep("a", "digits")
