"""An issuer's keys: which of them may verify what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from jwt_issuer import IssuerKey, key_of, key_set
from penstock.access.jwk_set import parse_key_set, secret_key_set
from penstock.jwt_config import ASYMMETRIC

EVERY = frozenset(ASYMMETRIC)


@pytest.mark.parametrize("algorithm", [*ASYMMETRIC, "Ed448"])
def test_each_algorithm_has_its_keys(algorithm: str) -> None:
    """And a key that says its algorithm is for no other."""
    keys = parse_key_set(key_set(key_of(algorithm)), EVERY)
    name = key_of(algorithm).algorithm
    assert keys.keys[0].algorithms == {name}
    assert len(keys.fitting("first", name)) == 1
    assert not keys.fitting("second", name)


@pytest.mark.parametrize(
    ("algorithm", "fitting"),
    [
        ("RS256", {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("ES384", {"ES384"}),
        ("EdDSA", {"EdDSA"}),
    ],
)
def test_a_key_that_does_not_say_is_for_all_of_its_type(algorithm: str, fitting: set[str]) -> None:
    """And of those that are accepted."""
    jwk = key_of(algorithm).jwk
    del jwk["alg"]
    assert parse_key_set(key_set(jwk), EVERY).keys[0].algorithms == fitting
    only = frozenset({algorithm})
    assert parse_key_set(key_set(jwk), only).keys[0].algorithms == only


def _changed(algorithm: str = "ES256", **changes: Any) -> dict[str, Any]:
    jwk = {**key_of(algorithm).jwk, **changes}
    return {name: value for name, value in jwk.items() if value is not None}


SMALL = IssuerKey("RS256", "small", rsa.generate_private_key(65537, 1024))

BAD_KEYS: dict[str, Any] = {
    "encryption": _changed(use="enc"),
    "wrong operations": _changed(key_ops=["sign"]),
    "operations of no list": _changed(key_ops="verify"),
    "another algorithm": _changed(alg="ES384"),
    "an algorithm of secrets": _changed(alg="HS256"),
    "none": _changed(alg="none"),
    "encryption with RSA": _changed("RS256", alg="RSA-OAEP"),
    "algorithm of another type": _changed("RS256", alg="ES256"),
    "algorithm is a number": _changed(alg=256),
    "secret": {"kty": "oct", "k": "AAAA", "kid": "first"},
    "secret with algorithm": {"kty": "oct", "k": "A" * 86, "alg": "RS256"},
    "private": _changed(d="AAAA"),
    "short RSA": SMALL.jwk,
    "giant exponent": _changed("RS256", e="AQAAAAE"),
    "no exponent": _changed("RS256", e=None),
    "not on the curve": _changed(x=key_of("ES256").jwk["y"]),
    "short point": _changed(x="AAAA"),
    "no point": _changed(x=None),
    "point is a list": _changed(x=["A"]),
    "unknown curve": _changed(crv="secp256k1"),
    "curve is a list": _changed(crv=["P-256"]),
    "X25519": _changed("EdDSA", crv="X25519"),
    "no type": _changed(kty=None),
    "id is a number": _changed(kid=1),
    "empty id": _changed(kid=""),
    "long id": _changed(kid="a" * 513),
    "text": "key",
    "nothing": None,
}


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_keys_that_are_left_out(bad: Any) -> None:
    """The others go on; where there is no other, that is an error."""
    other = key_of("PS256", "other")
    text = json.dumps({"keys": [bad, other.jwk]}).encode()
    assert [key.key_id for key in parse_key_set(text, EVERY).keys] == ["other"]
    with pytest.raises(ValueError, match="no key in it"):
        parse_key_set(json.dumps({"keys": [bad]}).encode(), EVERY)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [], "keys": []}',
        b"[" * 100_000,
        b'{"keys":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"keys": [' + b",".join([b"{}"] * 101) + b"]}",
        b'{"keys": [{"kty": NaN}]}',
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_key_set(text: bytes) -> None:
    """Is an error that can be told."""
    with pytest.raises(ValueError):
        parse_key_set(text, EVERY)


def test_one_id_twice() -> None:
    """Both keys are the issuer's: each may have signed."""
    first, second = IssuerKey("ES256", "same"), IssuerKey("ES256", "same")
    keys = parse_key_set(key_set(first, second, key_of("RS256", "same")), EVERY)
    assert len(keys.fitting("same", "ES256")) == 2
    assert len(keys.fitting("same", "RS256")) == 1


def test_a_token_without_id_means_the_only_key() -> None:
    """Where two fit, nobody knows."""
    first, second = key_of("ES256", "a"), key_of("ES256", "b")
    assert len(parse_key_set(key_set(first, key_of("RS256")), EVERY).fitting(None, "ES256")) == 1
    assert not parse_key_set(key_set(first, second), EVERY).fitting(None, "ES256")


def test_the_same_keys_in_another_order() -> None:
    """Are the same."""
    first, second = key_of("ES256", "a"), key_of("ES256", "b")
    one, other = (parse_key_set(key_set(*k), EVERY) for k in ((first, second), (second, first)))
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != parse_key_set(key_set(first), EVERY).fingerprint


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_as_long_as_the_hash(algorithm: str, size: int) -> None:
    """A shorter one could be guessed from a token."""
    keys = secret_key_set(bytes(size), frozenset({algorithm}))
    assert len(keys.fitting("any", algorithm)) == len(keys.fitting(None, algorithm)) == 1
    with pytest.raises(ValueError, match=f"expected {size} at least"):
        secret_key_set(bytes(size - 1), frozenset({algorithm}))


PEM = (
    key_of("ES256")
    .private.public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)


@pytest.mark.parametrize("secret", [key_set(key_of("ES256")), PEM])
def test_a_public_key_is_no_secret(secret: bytes) -> None:
    """Everybody has it."""
    with pytest.raises(ValueError, match="looks like a key"):
        secret_key_set(secret, frozenset({"HS256"}))
