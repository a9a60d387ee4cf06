"""Ed25519: what signs checkpoints and the head, and what checks them. Signed texts say what they are, and of what."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from penstock.errors import ConfigError

_DOMAIN: Final = b"penstock audit v1\0"
_END_OF_PEM: Final = b"-----END PUBLIC KEY-----"


class Verifier:
    """A public key."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key: Final = key
        raw = key.public_bytes_raw()
        self.public: Final = raw.hex()
        self.id: Final = sha256(raw).hexdigest()[:16]
        """By which records name it."""

    @classmethod
    def from_hex(cls, public: str) -> Verifier:
        """The key of a `key` record. Raises ValueError."""
        return cls(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)))

    def signed(self, purpose: str, signature: str, *parts: str) -> bool:
        """Whether it is this key's signature of the parts, made for that purpose."""
        try:
            self._key.verify(bytes.fromhex(signature), message(purpose, parts))
        except (InvalidSignature, ValueError):
            return False
        # bytes.fromhex takes capitals and blanks too
        return signature == bytes.fromhex(signature).hex()

    def pem(self) -> bytes:
        """As `--public-key` wants it."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


class Signer:
    """A private key. It shows itself nowhere."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key: Final = key
        self.verifier: Final = Verifier(key.public_key())
        self.id: Final = self.verifier.id

    @classmethod
    def from_pem(cls, pem: bytes, where: str) -> Signer:
        """The key of a PKCS #8 file. Raises ConfigError that names `where`, and nothing of the key."""
        try:
            key = serialization.load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # `from None`: what is wrong with it may be told by quoting it
            raise ConfigError(
                f"{where}: expected an Ed25519 private key in PEM, as `penstock audit keygen` makes it"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{where}: the key is of another kind, expected Ed25519")
        return cls(key)

    @classmethod
    def generate(cls) -> Signer:
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, purpose: str, *parts: str) -> str:
        """The signature, as hexadecimal."""
        return self._key.sign(message(purpose, parts)).hex()

    def private_pem(self) -> bytes:
        """PKCS #8, not encrypted."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def message(purpose: str, parts: Iterable[str]) -> bytes:
    """What is signed. No part has a NUL: they are hexadecimal and numbers."""
    return _DOMAIN + b"\0".join(text.encode() for text in (purpose, *parts))


def public_keys(pem: bytes, where: str) -> list[Verifier]:
    """All keys of a file. Raises ConfigError."""
    keys = []
    for block in pem.split(_END_OF_PEM)[:-1]:
        start = block.find(b"-----BEGIN")
        try:
            key = serialization.load_pem_public_key(block[max(start, 0) :] + _END_OF_PEM + b"\n")
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigError(f"{where}: not a public key in PEM") from None
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError(f"{where}: the key is of another kind, expected Ed25519")
        keys.append(Verifier(key))
    if not keys:
        raise ConfigError(f"{where}: expected Ed25519 public keys in PEM, found none")
    return keys
