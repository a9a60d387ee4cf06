"""Tokens that somebody has changed: never accepted, never an error of another kind."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from jwt_issuer import AUDIENCE, SECRET, claims_of, key_of, key_set
from penstock.access.credentials import Credentials
from penstock.access.jwt_auth import JwtAuthenticator
from penstock.access.jwt_claims import ClaimRules
from penstock.access.jwt_text import TokenRefused
from penstock.errors import Unauthenticated
from penstock.jwt_config import JwtIssuer
from penstock.secrets.secret import Secret

KEYS = {name: key_of(name) for name in ("RS256", "PS256", "ES256", "EdDSA")}
NOW = time.time()
TOKENS = {name: key.sign(claims_of("test", NOW)) for name, key in KEYS.items()} | {
    "HS256": jwt.encode(claims_of("secret", NOW), SECRET, "HS256").encode()
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "cty", "jwk", "enc", "x"])


@pytest.fixture(scope="module")
def authenticator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JwtAuthenticator]:
    """Two issuers: one of keys of all kinds, one of a secret."""
    file: Path = tmp_path_factory.mktemp("keys") / "keys.json"
    file.write_bytes(key_set(*KEYS.values()))
    usual = {"audience": AUDIENCE, "default_roles": "user", "max_lifetime_secs": 0}
    issuers = [
        JwtIssuer.model_validate({**usual, "issuer": "test", "jwks_file": file}),
        JwtIssuer.model_validate({**usual, "issuer": "secret", "secret": "env:NAME"}),
    ]
    authenticator = JwtAuthenticator.of(issuers, lambda ref: Secret(SECRET))
    authenticator.start()
    yield authenticator
    authenticator.close()


def _is_accepted(authenticator: JwtAuthenticator, token: bytes) -> bool:
    try:
        return authenticator.authenticate(Credentials(b"Bearer " + token)) is not None
    except Unauthenticated:
        return False


@pytest.mark.parametrize("name", TOKENS)
def test_they_are_good_as_they_are(authenticator: JwtAuthenticator, name: str) -> None:
    """Or nothing below would say anything."""
    assert _is_accepted(authenticator, TOKENS[name])


@given(data=st.data())
def test_a_byte_that_was_changed(authenticator: JwtAuthenticator, data: st.DataObject) -> None:
    """Any, to any other."""
    token = TOKENS[data.draw(st.sampled_from(sorted(TOKENS)))]
    at = data.draw(st.integers(0, len(token) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != token[at]))
    assert not _is_accepted(authenticator, token[:at] + bytes([byte]) + token[at + 1 :])


@given(data=st.data())
def test_a_piece_that_was_cut_or_put_in(
    authenticator: JwtAuthenticator, data: st.DataObject
) -> None:
    """Anywhere."""
    token = TOKENS[data.draw(st.sampled_from(sorted(TOKENS)))]
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, len(token)))
    piece = data.draw(st.binary(max_size=8))
    mangled = token[:start] + piece + token[end:]
    # spaces round it belong to the header
    if mangled.strip(b" ") != token:
        assert not _is_accepted(authenticator, mangled)


@given(data=st.data())
def test_parts_of_different_tokens(authenticator: JwtAuthenticator, data: st.DataObject) -> None:
    """Each good where it comes from."""
    names = [data.draw(st.sampled_from(sorted(TOKENS))) for _ in range(3)]
    parts = [TOKENS[name].split(b".")[at] for at, name in enumerate(names)]
    mixed = b".".join(parts)
    assert _is_accepted(authenticator, mixed) == (mixed in TOKENS.values())


@given(header=st.dictionaries(NAMES, JSON), payload=JSON, signature=st.binary(max_size=80))
def test_parts_that_are_made_up(
    authenticator: JwtAuthenticator, header: dict[str, Any], payload: Any, signature: bytes
) -> None:
    """Of whatever JSON."""
    if isinstance(payload, dict):
        payload |= {"iss": "test"}
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    token = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    assert not _is_accepted(authenticator, token)


@given(text=st.binary(max_size=200))
def test_bytes(authenticator: JwtAuthenticator, text: bytes) -> None:
    """Whatever comes in a header."""
    assert not _is_accepted(authenticator, text)
    assert not _is_accepted(authenticator, b"..".join((text, text)))


@given(header=st.dictionaries(NAMES, JSON))
def test_headers_that_are_signed(authenticator: JwtAuthenticator, header: dict[str, Any]) -> None:
    """An issuer may be careless: then its token is refused, and no more happens."""
    key = KEYS["ES256"]
    header = {"alg": "ES256", "kid": "first", **header}
    parts = (json.dumps(part).encode() for part in (header, claims_of("test", NOW)))
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    algorithm: Any = get_default_algorithms()["ES256"]
    signature = base64.urlsafe_b64encode(algorithm.sign(signed, key.private)).rstrip(b"=")
    if _is_accepted(authenticator, signed + b"." + signature):
        assert not {"crit", "b64", "enc"} & set(header)
        assert header["alg"] == "ES256"


CLAIMS = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "tenant", "groups", "azp"])


@given(changes=st.dictionaries(CLAIMS, JSON))
def test_claims_of_any_kind(changes: dict[str, Any]) -> None:
    """Either they say whose it is, as a name of a tenant within its time, or they are refused."""
    rules = ClaimRules(
        JwtIssuer.model_validate(
            {
                "issuer": "https://test",
                "audience": AUDIENCE,
                "roles_claim": "groups",
                "role_map": {"a": "user"},
            }
        )
    )
    claims = {**claims_of("https://test", NOW), **changes}
    try:
        found = rules.identity(claims, NOW)
    except TokenRefused:
        return
    assert claims["iss"] == "https://test"
    assert AUDIENCE in claims["aud"]
    assert claims["exp"] + 30 == found.expires_at > NOW
    assert found.tenant == claims["tenant"]
    assert set(found.roles) <= {"user"}
