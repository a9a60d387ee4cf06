"""Key-encryption keys: each opens the keys of files, which are wrapped by it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.errors import ConfigError, WrongKeyEncryptionKey
from penstock.secrets_config import SecretRef

KEY_BYTES: Final = 32
ID_BYTES: Final = 8
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
SLOT_BYTES: Final = ID_BYTES + NONCE_BYTES + KEY_BYTES + TAG_BYTES
"""A key of a file, wrapped: the id of the key that opens it, a nonce, and AES-256-GCM of it."""
EMPTY_SLOT: Final = bytes(SLOT_BYTES)


@dataclass(frozen=True, slots=True)
class KeyEncryptionKey:
    """One. Its id says which it is, and nothing of what it is."""

    _key: bytes = field(repr=False)

    @property
    def id(self) -> bytes:
        """Follows from the key."""
        return hashlib.blake2b(self._key, digest_size=ID_BYTES, person=b"penstock-kek-id").digest()

    def wrap(self, key: bytes, about: bytes) -> bytes:
        """A slot with the key of a file in it. `about` has to be the same to open it."""
        nonce = os.urandom(NONCE_BYTES)
        return self.id + nonce + AESGCM(self._key).encrypt(nonce, key, about)

    def unwrap(self, slot: bytes, about: bytes) -> bytes | None:
        """The key of a file; None: this key, or `about`, is another one."""
        nonce, wrapped = slot[ID_BYTES : ID_BYTES + NONCE_BYTES], slot[ID_BYTES + NONCE_BYTES :]
        if slot[:ID_BYTES] != self.id:
            return None
        try:
            return AESGCM(self._key).decrypt(nonce, wrapped, about)
        except InvalidTag:
            return None


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All that a server has; the first is the one to encrypt with."""

    keys: Sequence[KeyEncryptionKey]

    def unwrap(self, slots: Sequence[bytes], about: bytes, what: str) -> bytes:
        """The key of a file. Raises WrongKeyEncryptionKey."""
        for slot in slots:
            for key in self.keys:
                if (found := key.unwrap(slot, about)) is not None:
                    return found
        wanted = [slot[:ID_BYTES].hex() for slot in slots if slot != EMPTY_SLOT]
        have = ", ".join(key.id.hex() for key in self.keys) or "none"
        raise WrongKeyEncryptionKey(
            f"{what} is encrypted with the key-encryption key {' or '.join(wanted) or 'of nobody'}; "
            f"this server has {have}"
            + ("" if not _is_known(wanted, self.keys) else ", and its header was changed")
        )


def key_ring(references: Iterable[SecretRef], get: Callable[[SecretRef], bytes]) -> KeyRing:
    """The keys that are kept there. Raises ConfigError."""
    return KeyRing(tuple(KeyEncryptionKey(parse_key(get(each), str(each))) for each in references))


def parse_key(content: bytes, where: str) -> bytes:
    """32 bytes: as they are, in base64, or in hexadecimal. Raises ConfigError, which does not show them."""
    if len(content) == KEY_BYTES:
        return content
    text = content.strip()
    for decode in (_hexadecimal, base64.b64decode):
        try:
            key = decode(text)
        except (binascii.Error, ValueError):
            continue
        if len(key) == KEY_BYTES:
            return key
    raise ConfigError(f"{where}: expected a key of {KEY_BYTES} bytes, in base64 or hexadecimal")


def _hexadecimal(text: bytes) -> bytes:
    return bytes.fromhex(text.decode("ascii"))


def _is_known(wanted: Sequence[str], keys: Sequence[KeyEncryptionKey]) -> bool:
    return any(key.id.hex() in wanted for key in keys)
