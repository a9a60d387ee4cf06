"""A private CA for tests, and the certificates that it signs."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes
    serial: int

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Into `name.pem` and `name.key`, each replaced in one moment."""
        return replace(folder / f"{name}.pem", self.certificate), replace(
            folder / f"{name}.key", self.key
        )


class Authority:
    """A CA."""

    def __init__(self, name: str = "Test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._name, self._key, timedelta(0), 365 * DAY)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        certificate = builder.add_extension(constraints, critical=True).sign(self._key, SHA256())
        self.certificate = certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        name: str = "localhost",
        *,
        dns: Sequence[str] = ("localhost",),
        uris: Sequence[str] = (),
        subject: x509.Name | None = None,
        key: Key | None = None,
        after: timedelta = timedelta(0),
        lasts: timedelta = DAY,
        passphrase: bytes = b"",
    ) -> Pair:
        """A certificate of 127.0.0.1, `dns` and `uris`, which holds from `after` now on."""
        own = key or ec.generate_private_key(ec.SECP256R1())
        subject = subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.IPAddress(ip_address("127.0.0.1"))]
        names += [x509.DNSName(each) for each in dns]
        names += [x509.UniformResourceIdentifier(each) for each in uris]
        builder = _builder(subject, self._name, own, after, lasts)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, SHA256())
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        pem = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        return Pair(certificate.public_bytes(Encoding.PEM), pem, certificate.serial_number)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, after: timedelta, lasts: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC) + after
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # clocks differ
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + lasts)
    )


def replace(path: Path, content: bytes) -> Path:
    """Write a file that only this user may read, in one moment."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.chmod(0o600)
    os.replace(new, path)
    return path


def client_context(ca: Path, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client's, that trusts `ca` and shows a certificate."""
    context = ssl.create_default_context(cafile=str(ca))
    if pair is not None:
        context.load_cert_chain(*pair)
    return context
