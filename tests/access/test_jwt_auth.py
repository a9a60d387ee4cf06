"""Tokens → principals: each attack on JSON Web Tokens that is known, one by one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

from jwt_issuer import AUDIENCE, SECRET, IssuerKey, b64, claims_of, hmac_token, key_of, key_set
from penstock.access.credentials import Credentials
from penstock.access.jwt_auth import REFUSED, JwtAuthenticator
from penstock.access.key_source import Reads
from penstock.access.local_keys import FileKeys, SecretKeys
from penstock.access.principal import Principal
from penstock.errors import ConfigError, Unauthenticated, Unavailable
from penstock.jwt_config import ASYMMETRIC, SYMMETRIC, JwtIssuer
from penstock.secrets.secret import Secret
from penstock.secrets_config import SecretRef

ISSUER = "https://id.example.org"
KEY = key_of("ES256")


def raw_token(header: Any, payload: Any, key: IssuerKey = KEY) -> bytes:
    """A token that is signed well, whatever it says."""
    signed = b64(header) + b"." + b64(payload)
    algorithm: Any = get_default_algorithms()[key.algorithm]
    return signed + b"." + b64(algorithm.sign(signed, key.private))


def bearer(token: bytes) -> Credentials:
    """As a client sends it."""
    return Credentials(b"Bearer " + token)


class Known:
    """Issuers of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[JwtIssuer] = []

    def add(self, *keys: Any, **changes: Any) -> Known:
        """One more issuer, with these keys."""
        file = self.folder / f"{len(self.made)}.json"
        file.write_bytes(key_set(*keys))
        usual = {"issuer": ISSUER, "audience": AUDIENCE, "default_roles": "user"}
        self.made.append(JwtIssuer.model_validate({**usual, "jwks_file": file, **changes}))
        return self

    def start(self) -> JwtAuthenticator:
        """All of them."""
        authenticator = JwtAuthenticator.of(self.made, lambda ref: Secret(SECRET))
        authenticator.start()
        return authenticator


@pytest.fixture
def known(tmp_path: Path) -> Known:
    """None yet."""
    return Known(tmp_path)


@pytest.fixture
def authenticator(known: Known) -> JwtAuthenticator:
    """One issuer, with KEY."""
    return known.add(KEY).start()


def refused(authenticator: JwtAuthenticator, token: bytes) -> str:
    """The reason, which only the audit log is told."""
    with pytest.raises(Unauthenticated) as error:
        authenticator.authenticate(bearer(token))
    assert str(error.value) == REFUSED
    return error.value.reason


def test_a_good_token(authenticator: JwtAuthenticator) -> None:
    """Says whose it is."""
    claims = claims_of(ISSUER)
    assert authenticator.authenticate(bearer(KEY.sign(claims))) == Principal(
        id=f"jwt:{ISSUER}#alice",
        tenant="team-a",
        roles=("user",),
        kind="jwt",
        expires_at=claims["exp"] + 30,
    )


@pytest.mark.parametrize("algorithm", [*ASYMMETRIC, "Ed448"])
def test_each_algorithm(known: Known, algorithm: str) -> None:
    """With a key of its own."""
    key = key_of(algorithm)
    authenticator = known.add(key).start()
    assert authenticator.authenticate(bearer(key.sign(claims_of(ISSUER)))) is not None


@pytest.mark.parametrize("algorithm", SYMMETRIC)
def test_each_algorithm_of_secrets(known: Known, algorithm: str) -> None:
    """Whatever key id the token names: there is one secret."""
    known.add(jwks_file=None, secret="env:NAME", algorithms=[algorithm])
    authenticator = known.start()
    for header in ({}, {"kid": "any"}):
        token = jwt.encode(claims_of(ISSUER), SECRET, algorithm, header).encode()
        assert authenticator.authenticate(bearer(token)) is not None
    for other in {*SYMMETRIC} - {algorithm}:
        token = jwt.encode(claims_of(ISSUER), SECRET, other).encode()
        assert "alg" in refused(authenticator, token)


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_the_scheme_in_any_case(authenticator: JwtAuthenticator, scheme: bytes) -> None:
    """And any number of spaces after it."""
    token = KEY.sign(claims_of(ISSUER))
    assert authenticator.authenticate(Credentials(scheme + b"  " + token + b" ")) is not None


@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer psk_abc_secret",
        b"Bearer a.b",
        b"Bearer a.b.c.d",
        b"Basic YTpi",
        b"Basic a.b.c",
        b"a.b.c",
    ],
)
def test_what_is_no_token(authenticator: JwtAuthenticator, authorization: bytes) -> None:
    """Is for others to know."""
    assert authenticator.authenticate(Credentials(authorization)) is None
    assert authenticator.authenticate(Credentials(b"", KEY.sign(claims_of(ISSUER)))) is None


def _unsigned(algorithm: str, signature: bytes = b"") -> bytes:
    return b64({"alg": algorithm}) + b"." + b64(claims_of(ISSUER)) + b"." + b64(signature)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_no_signature(authenticator: JwtAuthenticator, algorithm: str) -> None:
    """By whatever spelling."""
    assert "alg" in refused(authenticator, _unsigned(algorithm))
    assert "alg" in refused(authenticator, _unsigned(algorithm, b"anything"))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_the_public_key_as_a_secret(known: Known, algorithm: str) -> None:
    """The old confusion: everybody has the public key."""
    key = key_of(algorithm)
    authenticator = known.add(key).start()
    public = key.private.public_key()
    forms = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(key.jwk).encode(),
    ]
    for secret in forms:
        token = hmac_token(secret, {"alg": "HS256", "kid": key.key_id}, claims_of(ISSUER))
        assert "alg" in refused(authenticator, token)


def test_a_public_algorithm_where_there_is_a_secret(known: Known) -> None:
    """Of one's own key."""
    authenticator = known.add(jwks_file=None, secret="env:NAME").start()
    assert "alg" in refused(authenticator, KEY.sign(claims_of(ISSUER)))


@pytest.mark.parametrize("name", ["RS256", "PS256", "ES384", "ES512", "EdDSA"])
def test_another_algorithm_than_the_keys(authenticator: JwtAuthenticator, name: str) -> None:
    """The key says what it is for, not the token."""
    other = key_of(name)
    assert "no key" in refused(authenticator, other.sign(claims_of(ISSUER)))


def test_algorithms_are_pinned(known: Known) -> None:
    """By the settings, whatever the issuer's keys could do."""
    rsa = key_of("RS256")
    authenticator = known.add(KEY, {**rsa.jwk, "kid": "rsa"}, algorithms=["ES256"]).start()
    token = IssuerKey("RS256", "rsa", rsa.private).sign(claims_of(ISSUER))
    assert "alg" in refused(authenticator, token)


def test_somebody_elses_signature(authenticator: JwtAuthenticator) -> None:
    """By a key of the same id."""
    other = IssuerKey("ES256", KEY.key_id)
    assert "no key" in refused(authenticator, other.sign(claims_of(ISSUER)))


def test_a_key_that_the_token_brings_itself(authenticator: JwtAuthenticator) -> None:
    """Is not looked at, and no address in it is asked."""
    other = IssuerKey("ES256", KEY.key_id)
    header = {"jwk": other.jwk, "jku": "http://127.0.0.1:9/keys", "x5u": "http://127.0.0.1:9/"}
    assert "no key" in refused(authenticator, other.sign(claims_of(ISSUER), header))


@pytest.mark.parametrize(
    "kid", ["second", "../../../etc/passwd", "' OR 1=1 --", "first\0", "", "a" * 2000, "\ud800"]
)
def test_a_key_id_of_nobody(authenticator: JwtAuthenticator, kid: str) -> None:
    """Is only compared."""
    token = raw_token({"alg": "ES256", "kid": kid}, claims_of(ISSUER))
    assert "kid" in refused(authenticator, token)


def test_several_issuers(known: Known) -> None:
    """A token is its issuer's alone: another's key does not do, nor another's rules."""
    other_key = key_of("ES256", "other")
    known.add(KEY).add(
        other_key, issuer="other", audience="elsewhere", tenant="other", default_roles="viewer"
    )
    authenticator = known.start()
    token = other_key.sign(claims_of("other", aud="elsewhere"))
    principal = authenticator.authenticate(bearer(token))
    assert principal is not None
    assert (principal.id, principal.tenant, principal.roles) == (
        "jwt:other#alice",
        "other",
        ("viewer",),
    )
    for key, claims in [
        (other_key, claims_of(ISSUER)),
        (KEY, claims_of("other", aud="elsewhere")),
        (other_key, claims_of("other")),
        (KEY, claims_of("nobody")),
        (KEY, claims_of(ISSUER + "/")),
    ]:
        refused(authenticator, key.sign(claims))


def _changed_header(**changes: Any) -> bytes:
    header = {"alg": "ES256", "kid": "first", "typ": "JWT", **changes}
    return raw_token(header, claims_of(ISSUER))


JWE = b64({"alg": "RSA-OAEP", "enc": "A256GCM"}) + b".AAAA.AAAA.AAAA.AAAA"
GOOD = KEY.sign(claims_of(ISSUER, now=4_000_000_000))
DEEP = b'{"iss":"' + ISSUER.encode() + b'","a":' + b"[" * 5000 + b"]" * 5000 + b"}"
TWICE = json.dumps(claims_of(ISSUER)).encode()[:-1] + b',"tenant":"root"}'

BAD_TOKENS: dict[str, Callable[[], bytes]] = {
    "crit": lambda: _changed_header(crit=["exp"], exp=1),
    "empty crit": lambda: _changed_header(crit=[]),
    "b64": lambda: _changed_header(b64=False, crit=["b64"]),
    "b64 alone": lambda: _changed_header(b64=True),
    "zip": lambda: _changed_header(zip="DEF"),
    "enc": lambda: _changed_header(enc="A256GCM"),
    "nested": lambda: _changed_header(cty="JWT"),
    "encrypted": lambda: JWE,
    "type": lambda: _changed_header(typ="logout+jwt"),
    "type is a list": lambda: _changed_header(typ=["JWT"]),
    "alg is a list": lambda: _changed_header(alg=["ES256"]),
    "alg is null": lambda: _changed_header(alg=None),
    "kid is a list": lambda: _changed_header(kid=["first"]),
    "kid is null": lambda: _changed_header(kid=None),
    "no alg": lambda: raw_token({"kid": "first"}, claims_of(ISSUER)),
    "header is a list": lambda: raw_token(b"[]", claims_of(ISSUER)),
    "header twice": lambda: raw_token(b'{"alg":"none","alg":"ES256"}', claims_of(ISSUER)),
    "long header": lambda: _changed_header(x5c=["A" * 5000]),
    "claim twice": lambda: raw_token({"alg": "ES256", "kid": "first"}, TWICE),
    "claims are a list": lambda: raw_token({"alg": "ES256", "kid": "first"}, b"[]"),
    "claims are a text": lambda: raw_token({"alg": "ES256", "kid": "first"}, b'"x"'),
    "claims are no JSON": lambda: raw_token({"alg": "ES256", "kid": "first"}, b"{"),
    "claims are empty": lambda: raw_token({"alg": "ES256", "kid": "first"}, b""),
    "UTF-16": lambda: raw_token(
        {"alg": "ES256", "kid": "first"}, json.dumps(claims_of(ISSUER)).encode("utf-16")
    ),
    "not UTF-8": lambda: raw_token({"alg": "ES256", "kid": "first"}, b'{"iss":"\xff"}'),
    "deep": lambda: raw_token({"alg": "ES256", "kid": "first"}, DEEP),
    "NaN": lambda: raw_token({"alg": "ES256", "kid": "first"}, b'{"exp":NaN}'),
    "giant number": lambda: raw_token(
        {"alg": "ES256", "kid": "first"}, b'{"exp":' + b"9" * 5000 + b"}"
    ),
    "iss is a list": lambda: raw_token(
        {"alg": "ES256", "kid": "first"}, claims_of(ISSUER) | {"iss": [ISSUER]}
    ),
    "tenant is a list": lambda: KEY.sign(claims_of(ISSUER, tenant=["team-a"])),
    "expired": lambda: KEY.sign(claims_of(ISSUER, now=1_000_000_000)),
    "huge": lambda: KEY.sign(claims_of(ISSUER, more="a" * 20_000)),
    "empty parts": lambda: b"..",
    "no signature": lambda: GOOD.rsplit(b".", 1)[0] + b".",
    "padding": lambda: GOOD + b"==",
    "white space": lambda: GOOD.replace(b".", b". ", 1),
    "a line's end": lambda: GOOD + b"\n",
    "base64 of the other kind": lambda: GOOD[:-2] + b"+/",
    "not ASCII": lambda: GOOD[:-1] + b"\xc3",
    "NUL": lambda: GOOD + b"\0",
    "in the future": lambda: GOOD,
    "two tokens": lambda: GOOD + b"," + GOOD,
}


@pytest.mark.parametrize("make", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
def test_tokens_that_are_none(authenticator: JwtAuthenticator, make: Callable[[], bytes]) -> None:
    """Each is refused with the same words, or is not even taken for a token."""
    token = make()
    if token.count(b".") in (2, 4):
        refused(authenticator, token)
    else:
        assert authenticator.authenticate(bearer(token)) is None


def test_a_token_has_one_spelling(authenticator: JwtAuthenticator) -> None:
    """The last character's unused bits are none: who bars a token by its text bars all of it."""
    key = key_of("EdDSA")
    token = key.sign(claims_of(ISSUER))
    assert len(token.rsplit(b".", 1)[1]) % 4 == 2
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    at = letters.index(token[-1])
    for bits in range(1, 16):
        twin = token[:-1] + letters[at ^ bits : (at ^ bits) + 1]
        assert "base64url" in refused(authenticator, twin)


def test_what_is_long_is_not_read(known: Known) -> None:
    """The limit is the issuer's."""
    known.add(KEY, max_token_bytes=500)
    authenticator = known.add(KEY, issuer="other").start()
    assert authenticator.authenticate(bearer(KEY.sign(claims_of(ISSUER)))) is not None
    long = "a" * 500
    assert "limit" in refused(authenticator, KEY.sign(claims_of(ISSUER, more=long)))
    assert authenticator.authenticate(bearer(KEY.sign(claims_of("other", more=long))))


def test_keys_that_change_are_another_generation(known: Known) -> None:
    """What was remembered is decided anew."""
    authenticator = known.add(KEY).start()
    token, before = KEY.sign(claims_of(ISSUER)), authenticator.generation
    authenticator.refresh(0)
    assert authenticator.generation == before
    (known.folder / "0.json").write_bytes(key_set(key_of("ES256", "second")))
    authenticator.refresh(1)
    assert authenticator.generation != before
    assert "kid" in refused(authenticator, token)


def test_a_new_key_is_found_at_once_in_a_file(known: Known) -> None:
    """The file is looked at before the token is refused for good: the next try finds it."""
    authenticator = known.add(KEY).start()
    new = key_of("ES256", "second")
    (known.folder / "0.json").write_bytes(key_set(KEY, new))
    token = new.sign(claims_of(ISSUER))
    refused(authenticator, token)
    assert authenticator.authenticate(bearer(token)) is not None


class Pending:
    """An issuer's keys that are on their way."""

    is_pending = True
    version = 0

    def __init__(self) -> None:
        self.asked = 0
        self.reads = Reads()
        self.keys = FileKeys  # never looked at

    def start(self) -> None:
        """Nothing to do."""

    def refresh(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def ask(self) -> None:
        """Counts."""
        self.asked += 1


def test_while_nobody_knows_the_keys(known: Known) -> None:
    """A token may be good: its sender is told to come back, and not that it is bad."""
    source = Pending()
    authenticator = JwtAuthenticator(known.add(KEY).made, lambda issuer: source)  # type: ignore[arg-type, return-value]
    with pytest.raises(Unavailable) as error:
        authenticator.authenticate(bearer(KEY.sign(claims_of(ISSUER))))
    assert error.value.retry_after_s == 1
    assert source.asked == 1
    # whose it is can be seen without keys
    refused(authenticator, KEY.sign(claims_of("nobody")))
    refused(authenticator, _unsigned("none"))


def test_logs_show_no_token(
    authenticator: JwtAuthenticator, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor any of its claims."""
    caplog.set_level(logging.DEBUG)
    for make in BAD_TOKENS.values():
        token = make()
        if token.count(b".") in (2, 4):
            refused(authenticator, token)
        for part in token.split(b"."):
            assert len(part) < 8 or part.decode("latin-1") not in caplog.text
    assert "alice" not in caplog.text
    assert "a token was refused" in caplog.text


def test_a_secret_that_was_changed(known: Known) -> None:
    """Tokens of the old one hold no more."""
    secrets = [SECRET]
    known.add(jwks_file=None, secret="env:NAME")
    authenticator = JwtAuthenticator(
        known.made,
        lambda issuer: SecretKeys(
            issuer, SecretRef.parse("env:NAME"), lambda ref: Secret(secrets[0])
        ),
    )
    authenticator.start()
    token = jwt.encode(claims_of(ISSUER), SECRET, "HS256").encode()
    assert authenticator.authenticate(bearer(token)) is not None
    before = authenticator.generation
    secrets[0] = SECRET[::-1]
    authenticator.refresh(0)
    assert authenticator.generation != before
    refused(authenticator, token)


def test_an_issuer_that_is_broken_does_not_take_others_along(known: Known) -> None:
    """The start says so; whoever goes on all the same has the other's keys, and its own once it is mended."""
    known.add(KEY).add(KEY, issuer="other")
    (known.folder / "0.json").write_bytes(b"{")
    authenticator = JwtAuthenticator.of(known.made, lambda ref: Secret(SECRET))
    with pytest.raises(ConfigError, match=r"0\.json: no keys"):
        authenticator.start()
    token = KEY.sign(claims_of(ISSUER))
    with pytest.raises(Unavailable):
        authenticator.authenticate(bearer(token))
    assert authenticator.authenticate(bearer(KEY.sign(claims_of("other")))) is not None
    (known.folder / "0.json").write_bytes(key_set(KEY))
    authenticator.refresh(0)
    assert authenticator.authenticate(bearer(token)) is not None
