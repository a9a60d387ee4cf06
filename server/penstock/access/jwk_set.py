"""An issuer's keys (a JSON Web Key Set) → those that may verify its tokens, each for the algorithms that fit it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import get_default_algorithms

from penstock.access.jwt_text import read_json_object

_log = logging.getLogger(__name__)

MAX_KEYS: Final = 100
MAX_KEY_ID_CHARACTERS: Final = 512
RSA_BITS: Final = range(2048, 8193)
"""Shorter ones can be broken, longer ones take the time of many requests."""
MAX_RSA_EXPONENT: Final = 2**32
MIN_SECRET_BYTES: Final[Mapping[str, int]] = {"HS256": 32, "HS384": 48, "HS512": 64}
"""As long as the hash (RFC 7518, 3.2): shorter ones can be guessed from one token."""

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_FITTING: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("RSA", ""): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
"""Type and curve → what such a key can sign. A secret (`oct`) has no place among public keys."""
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class VerificationKey(msgspec.Struct, frozen=True):
    """One key."""

    key_id: str | None
    algorithms: frozenset[str]
    key: Any
    """As PyJWT takes it."""


class KeySet(msgspec.Struct, frozen=True):
    """All keys of an issuer."""

    keys: tuple[VerificationKey, ...] = ()
    fingerprint: bytes = b""
    """Equal for equal keys, in whatever order."""
    has_ids: bool = True
    """Whether keys are found by their id: a secret is found by its algorithm."""

    def fitting(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """The keys that may have signed: those of that id (one id may be there twice), without an id the only one."""
        fitting = tuple(key for key in self.keys if algorithm in key.algorithms)
        if key_id is None or not self.has_ids:
            return fitting if len(fitting) == 1 else ()
        return tuple(key for key in fitting if key.key_id == key_id)

    def knows(self, key_id: str) -> bool:
        """Whether there is a key of this id, for whatever algorithm."""
        return any(key.key_id == key_id for key in self.keys)


def parse_key_set(text: bytes, algorithms: frozenset[str]) -> KeySet:
    """The keys that can verify by one of `algorithms`. Raises ValueError if it is no key set, or none fits."""
    try:
        listed = read_json_object(text).get("keys")
    except ValueError as error:
        # the parser says where, and not what of
        raise ValueError(f"no JSON Web Key Set, which is a JSON object: {error}") from None
    if not isinstance(listed, list):
        raise ValueError("no list of keys in it")
    if len(listed) > MAX_KEYS:
        raise ValueError(f"{len(listed)} keys in it, expected {MAX_KEYS} at most")
    usable = []
    for number, item in enumerate(listed):
        try:
            usable.append((_parse_key(item, algorithms), item))
        except ValueError as error:
            _log.debug("key %d is left out: %s", number, error)
    if not usable:
        raise ValueError("no key in it that fits the accepted algorithms")
    return KeySet(tuple(key for key, _ in usable), _fingerprint(item for _, item in usable))


def secret_key_set(secret: bytes, algorithms: frozenset[str]) -> KeySet:
    """A secret that issuer and server share. Raises ValueError if it is too short, or no secret."""
    least = max(MIN_SECRET_BYTES[name] for name in algorithms)
    if len(secret) < least:
        raise ValueError(f"a secret of {len(secret)} bytes, expected {least} at least")
    try:
        get_default_algorithms()[min(algorithms)].prepare_key(secret)
    except jwt.InvalidKeyError:
        raise ValueError("no secret: it looks like a key that everybody may have") from None
    digest = hashlib.sha256(secret).digest()
    return KeySet((VerificationKey(None, algorithms, secret),), digest, has_ids=False)


def _parse_key(item: Any, algorithms: frozenset[str]) -> VerificationKey:
    if not isinstance(item, dict):
        raise ValueError("not an object")
    if not _PRIVATE_MEMBERS.isdisjoint(item):
        raise ValueError("a private key or a secret: whoever reads it could sign")
    if item.get("use", "sig") != "sig":
        raise ValueError("not for signatures")
    operations = item.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("not to verify with")
    key_id = item.get("kid")
    if key_id is not None and not (
        isinstance(key_id, str) and 0 < len(key_id) <= MAX_KEY_ID_CHARACTERS
    ):
        raise ValueError("kid is no text, or a long one")
    fitting = _fitting_algorithms(item) & algorithms
    if not fitting:
        raise ValueError("not for an algorithm that is accepted")
    return VerificationKey(key_id, fitting, _public_key(item, min(fitting)))


def _fitting_algorithms(item: Mapping[str, Any]) -> frozenset[str]:
    kind, curve = item.get("kty"), item.get("crv", "")
    if not isinstance(kind, str) or not isinstance(curve, str):
        raise ValueError("kty or crv is no text")
    fitting = frozenset(_FITTING.get((kind, curve), ()))
    return fitting if "alg" not in item else fitting & {str(item["alg"])}


def _public_key(item: dict[str, Any], algorithm: str) -> Any:
    try:
        key = jwt.PyJWK(item, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a key: {type(error).__name__}") from None
    if isinstance(key, RSAPublicKey):
        if key.key_size not in RSA_BITS:
            raise ValueError(f"an RSA key of {key.key_size} bits")
        if key.public_numbers().e >= MAX_RSA_EXPONENT:
            raise ValueError("an RSA key of a giant exponent")
    return key


def _fingerprint(items: Iterable[Mapping[str, Any]]) -> bytes:
    texts = sorted(json.dumps(item, sort_keys=True) for item in items)
    return hashlib.sha256("\n".join(texts).encode()).digest()
