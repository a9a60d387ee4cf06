"""Private keys: made, written as PEM, and read again."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from penstock.certs.request import KeyType
from penstock.errors import ConfigError
from penstock.secrets.secret import Secret

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
MAX_PASSPHRASE_BYTES: Final = 1023
"""What OpenSSL takes."""
_RSA_EXPONENT: Final = 65_537


def make_key(key_type: KeyType) -> PrivateKey:
    """A new one."""
    match key_type:
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "rsa3072":
            return rsa.generate_private_key(_RSA_EXPONENT, 3072)


def hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """What its signatures are made with: as strong as the key."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256:
        return hashes.SHA384()
    return hashes.SHA256()


def key_to_pem(key: PrivateKey, passphrase: Secret | None = None) -> bytes:
    """PKCS#8, encrypted where there is a passphrase. Raises ConfigError for one that is too long."""
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        if len(passphrase.reveal()) > MAX_PASSPHRASE_BYTES:
            raise ConfigError(f"a passphrase is of {MAX_PASSPHRASE_BYTES} bytes at most")
        encryption = BestAvailableEncryption(passphrase.reveal())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def key_from_pem(pem: bytes, where: str, passphrase: Secret | None = None) -> PrivateKey:
    """Raises ConfigError that names `where`, and shows nothing of the key."""
    password = None if passphrase is None else passphrase.reveal()
    try:
        key = load_pem_private_key(pem, password)
    except TypeError:
        state = "needs a passphrase" if passphrase is None else "is not encrypted"
        raise ConfigError(f"{where}: the key {state}") from None
    except (ValueError, UnsupportedAlgorithm):
        cause = "the passphrase is wrong, or it" if passphrase is not None else "it"
        raise ConfigError(f"{where}: {cause} is no private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigError(f"{where}: expected an EC or RSA key")
    return key


def same_key(one: object, other: object) -> bool:
    """Whether two public keys are the same."""
    return _bytes_of(one) == _bytes_of(other)


def _bytes_of(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
