"""A signature's file: a Sigstore bundle with a DSSE envelope, as OpenSSF's model-signing writes and reads it.

Both ways of that package that need no network are known: a bare elliptic-curve key, and a certificate. The package
itself verifies folders by their paths, and certificates as of the day they begin; here a manifest is wanted, to compare
files with while they are read, and a certificate has to be valid now.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Certificate, load_der_x509_certificate

from penstock.errors import SignatureInvalid

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_BYTES: Final = 64 << 20
"""A bundle larger than this is some other file."""
MAX_CERTIFICATES: Final = 8

_HASHES: Final[Mapping[int, type[hashes.HashAlgorithm]]] = {
    256: hashes.SHA256,
    384: hashes.SHA384,
    521: hashes.SHA512,
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A signature, not verified yet."""

    payload: bytes
    signature: bytes
    key_id: str = ""
    """Of the key that has signed; empty: not said."""
    chain: Sequence[Certificate] = ()
    """The signer's certificate and those above it; none: a bare key has signed."""

    def is_by(self, key: ec.EllipticCurvePublicKey) -> bool:
        """Whether the key has signed it."""
        algorithm = _HASHES.get(key.curve.key_size)
        if algorithm is None:
            return False
        try:
            key.verify(self.signature, _encoded(self.payload), ec.ECDSA(algorithm()))
        except InvalidSignature:
            return False
        return True


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """What bundles call a key by."""
    encoded = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(encoded).hexdigest()


def sign(
    payload: bytes, key: ec.EllipticCurvePrivateKey, chain: Sequence[Certificate] = ()
) -> bytes:
    """A bundle's file. `chain`: the key's certificate, and those above it; none: its signature is by the bare key."""
    algorithm = _HASHES[key.curve.key_size]
    signature = key.sign(_encoded(payload), ec.ECDSA(algorithm()))
    material: dict[str, Any] = {"publicKey": {"hint": key_id(key.public_key())}}
    if chain:
        encoded = [each.public_bytes(serialization.Encoding.DER) for each in chain]
        certificates = [{"rawBytes": _base64(each)} for each in encoded]
        material = {"x509CertificateChain": {"certificates": certificates}}
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {**material, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": _base64(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _base64(signature), "keyid": ""}],
        },
    }
    return json.dumps(bundle).encode()


def parse(content: bytes) -> Bundle:
    """Read a bundle's file. Raises SignatureInvalid."""
    try:
        return _parse(json.loads(content))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise SignatureInvalid(f"it is no bundle of a signature: {error!r:.200}") from error


def _parse(bundle: Any) -> Bundle:
    envelope = bundle["dsseEnvelope"]
    for name, found, expected in (
        ("media type", bundle["mediaType"], MEDIA_TYPE),
        ("payload", envelope["payloadType"], PAYLOAD_TYPE),
    ):
        if found != expected:
            raise SignatureInvalid(f"its {name} is {str(found)[:80]!a}; expected {expected}")
    material = bundle["verificationMaterial"]
    (signature,) = envelope["signatures"]
    certificates = material.get("x509CertificateChain", {}).get("certificates", ())
    if len(certificates) > MAX_CERTIFICATES:
        raise SignatureInvalid(f"it has over {MAX_CERTIFICATES} certificates")
    chain = tuple(load_der_x509_certificate(_bytes(each["rawBytes"])) for each in certificates)
    hint = "" if chain else str(material["publicKey"].get("hint") or "")
    return Bundle(_bytes(envelope["payload"]), _bytes(signature["sig"]), hint, chain)


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    return b"DSSEv1 %d %s %d %s" % (
        len(PAYLOAD_TYPE),
        PAYLOAD_TYPE.encode(),
        len(payload),
        payload,
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise SignatureInvalid(f"a part of it is not base64: {error}") from error
