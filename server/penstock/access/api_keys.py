"""The form of an API key: `psk_<id>_<secret>`, and how it is told that somebody holds the secret.

The id is public: it is shown in lists and logs. The secret has 256 random bits, and six more characters at its end are
a checksum, so that a key that was typed or copied wrongly is told from one that is not known.

A key's salted SHA-256 is what is kept. Slow hashes are for passwords, which people choose: they make guessing dear.
Nobody can guess 256 random bits, however fast the hash is, and a slow one would let anybody without a key keep the
server busy. The salt is a key's own, so that two files can't be compared, and no table made beforehand helps.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib
from typing import Final, NamedTuple

PREFIX: Final = "psk_"
ID_LENGTH: Final = 10
SECRET_LENGTH: Final = 43
"""62^43 is a little more than 2^256."""
CHECKSUM_LENGTH: Final = 6
SALT_BYTES: Final = 16
LENGTH: Final = len(PREFIX) + ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_CHARACTERS: Final = frozenset(_ALPHABET)


class ParsedKey(NamedTuple):
    """A key that has the right form."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"ParsedKey(id={self.id!r})"


class NewKey(NamedTuple):
    """What is kept of a key, and its text, which is shown once."""

    id: str
    salt: bytes
    hash: bytes
    text: str

    def __repr__(self) -> str:
        return f"NewKey(id={self.id!r})"


def make_key() -> NewKey:
    """A new one, from the system's random numbers."""
    key_id, secret = _random(ID_LENGTH), _random(SECRET_LENGTH)
    salt = secrets.token_bytes(SALT_BYTES)
    body = f"{PREFIX}{key_id}_{secret}"
    return NewKey(key_id, salt, hash_secret(salt, secret), body + _checksum(body))


def parse_key(text: str) -> ParsedKey | None:
    """The key's parts; None when it was never one: its form or its checksum is wrong."""
    body, checksum = text[:-CHECKSUM_LENGTH], text[-CHECKSUM_LENGTH:]
    key_id, underscore, secret = body[len(PREFIX) :].partition("_")
    if len(text) != LENGTH or not text.startswith(PREFIX) or not underscore:
        return None
    if len(key_id) != ID_LENGTH or not _CHARACTERS.issuperset(key_id + secret):
        return None
    return ParsedKey(key_id, secret) if _checksum(body) == checksum else None


def hash_secret(salt: bytes, secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(salt + secret.encode()).digest()


def is_secret(salt: bytes, expected: bytes, secret: str) -> bool:
    """Whether the hash is the secret's; it takes as long whatever the answer is."""
    return hmac.compare_digest(hash_secret(salt, secret), expected)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
