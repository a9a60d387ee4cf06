"""What a token's claims must say, and whose requests they make."""

from __future__ import annotations

from typing import Any

import pytest

from jwt_issuer import AUDIENCE, claims_of
from penstock.access.jwt_claims import ClaimRules
from penstock.access.jwt_text import TokenRefused
from penstock.jwt_config import JwtIssuer

ISSUER = "https://id.example.org"
NOW = 1_800_000_000.0


def _rules(**changes: Any) -> ClaimRules:
    settings = {"issuer": ISSUER, "audience": AUDIENCE, "default_roles": "user", **changes}
    return ClaimRules(JwtIssuer.model_validate(settings))


def _claims(**changes: Any) -> dict[str, Any]:
    return claims_of(ISSUER, NOW, **changes)


def test_a_good_one_says_whose_it_is_and_until_when() -> None:
    """The session ends with the token, by a clock that may be as wrong as the leeway."""
    found = _rules(leeway_secs=30).identity(_claims(), NOW)
    assert (found.subject, found.tenant, found.roles) == ("alice", "team-a", ("user",))
    assert found.expires_at == NOW + 600 + 30


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://id.example.org/"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"aud": []},
        {"aud": ["other"]},
        {"aud": [AUDIENCE, 1]},
        {"aud": {AUDIENCE: 1}},
        {"exp": None},
        {"exp": "1900000000"},
        {"exp": True},
        {"exp": NOW - 31},
        {"exp": NOW - 30},
        {"exp": -1},
        {"exp": 1e300},
        {"exp": 10**400},
        {"exp": [NOW + 600]},
        {"nbf": NOW + 31},
        {"nbf": "0"},
        {"iat": NOW + 31},
        {"iat": "now"},
        {"iat": {}},
        {"exp": NOW + 86_400 + 31},
        {"exp": NOW + 86_400 + 31, "iat": None},
        {"tenant": None},
        {"tenant": ""},
        {"tenant": ["team-a"]},
        {"tenant": 7},
        {"tenant": {"name": "team-a"}},
        {"tenant": "a" * 65},
        {"tenant": "team\na"},
        {"tenant": "team a"},
        {"tenant": "../team"},
        {"tenant": "*"},
        {"tenant": "\ud800"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a" * 256},
        {"sub": "alice\x1b[0m"},
    ],
    ids=str,
)
def test_what_is_refused(changes: dict[str, Any]) -> None:
    """Each thing alone."""
    with pytest.raises(TokenRefused):
        _rules().identity(_claims(**changes), NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [AUDIENCE, "other"]},
        {"exp": NOW - 29.5},
        {"nbf": NOW + 30},
        {"iat": NOW + 30},
        {"iat": None},
        {"exp": NOW + 0.5},
    ],
    ids=str,
)
def test_what_is_accepted(changes: dict[str, Any]) -> None:
    """Just within the bounds."""
    assert _rules().identity(_claims(**changes), NOW).tenant == "team-a"


def test_a_token_may_be_too_old() -> None:
    """Even if it says that it holds for longer; without `iat` nobody knows."""
    rules = _rules(max_age_secs=60, leeway_secs=0)
    assert rules.identity(_claims(), NOW + 59).expires_at == NOW + 60
    for claims in (_claims(iat=None), _claims(iat=NOW - 60)):
        with pytest.raises(TokenRefused):
            rules.identity(claims, NOW)


def test_any_lifetime_where_it_is_not_limited() -> None:
    """By 0."""
    rules = _rules(max_lifetime_secs=0)
    assert rules.identity(_claims(exp=NOW + 10**9), NOW).expires_at > NOW + 10**9


def test_a_tenant_within_a_claim() -> None:
    """By its path; on the way there are only objects."""
    rules = _rules(tenant_claim="org.tenant")
    assert rules.identity(_claims(org={"tenant": "deep"}), NOW).tenant == "deep"
    for org in ({}, [{"tenant": "deep"}], "tenant", None, {"tenant": {"tenant": "deep"}}):
        with pytest.raises(TokenRefused):
            rules.identity(_claims(org=org), NOW)


def test_a_claim_with_dots_in_its_name() -> None:
    """As Auth0 has them."""
    rules = _rules(tenant_claim=r"https://example\.com/tenant")
    assert rules.identity(_claims(**{"https://example.com/tenant": "x"}), NOW).tenant == "x"


def test_an_issuer_speaks_for_its_tenants_alone() -> None:
    """Otherwise one customer's issuer could make tokens of another."""
    rules = _rules(tenants=["team-*"])
    assert rules.identity(_claims(), NOW).tenant == "team-a"
    with pytest.raises(TokenRefused, match="may not speak"):
        rules.identity(_claims(tenant="other"), NOW)


def test_a_tenant_by_the_configuration() -> None:
    """Whatever the token says."""
    rules = _rules(tenant="fixed")
    assert rules.identity(_claims(tenant=["?"]), NOW).tenant == "fixed"


@pytest.mark.parametrize(
    ("groups", "roles"),
    [
        (None, ("user",)),
        ([], ("user",)),
        ("ops", ("operator", "viewer")),
        (["ops", "ml", "ops"], ("operator", "viewer", "user")),
        (["admin", "OPS"], ("user",)),
    ],
)
def test_roles_come_by_the_map(groups: Any, roles: tuple[str, ...]) -> None:
    """A group that happens to be called as a role of ours gives nothing."""
    rules = _rules(roles_claim="groups", role_map={"ops": ["operator", "viewer"], "ml": "user"})
    assert rules.identity(_claims(groups=groups), NOW).roles == roles


@pytest.mark.parametrize("groups", [7, {"ops": 1}, ["ops", 1], [["ops"]], ["x"] * 1001])
def test_roles_that_are_no_texts(groups: Any) -> None:
    """Are refused, not left out: who knows what was meant."""
    with pytest.raises(TokenRefused):
        _rules(roles_claim="groups", role_map={"ops": "operator"}).identity(
            _claims(groups=groups), NOW
        )


@pytest.mark.parametrize(
    ("wanted", "good", "bad"),
    [
        ("web", ["web", ["web", "x"]], ["Web", None, ["x"], 1, {"web": 1}]),
        (True, [True], [1, "true", False, None]),
        (1, [1], [True, "1", 1.5]),
        (["a", "b"], ["a", "b", ["b"]], ["c", "ab", ["c"]]),
        ("*", [0, False, "", "x", []], [None]),
    ],
)
def test_claims_that_are_required(wanted: Any, good: list[Any], bad: list[Any]) -> None:
    """With that value, of that type."""
    rules = _rules(required_claims={"a.b": wanted})
    for value in good:
        assert rules.identity(_claims(a={"b": value}), NOW).tenant == "team-a", value
    for value in bad:
        with pytest.raises(TokenRefused):
            rules.identity(_claims(a={"b": value}), NOW)
    with pytest.raises(TokenRefused):
        rules.identity(_claims(a={}), NOW)


@pytest.mark.parametrize(
    ("typ", "accepted"),
    [
        (None, True),
        ("JWT", True),
        ("jwt", True),
        ("at+jwt", True),
        ("application/at+jwt", True),
        ("logout+jwt", False),
        ("dpop+jwt", False),
        ("JOSE", False),
    ],
)
def test_tokens_that_are_made_for_something_else(typ: str | None, accepted: bool) -> None:
    """Say so by their type."""
    header = {} if typ is None else {"typ": typ}
    if accepted:
        _rules().check_type(header)
    else:
        with pytest.raises(TokenRefused):
            _rules().check_type(header)
