"""What TLS is spoken with, read from files and checked: a certificate, its key, and the CAs of clients."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from penstock.certs.inspection import UNREADABLE, read_all_of
from penstock.errors import ConfigError
from penstock.secrets.secret import Secret
from penstock.tls_config import TlsSettings

MAX_FILE_BYTES: Final = 1 << 20
MIN_RSA_BITS: Final = 2048
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
"""What Envoy's TLS takes."""

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_END: Final = re.compile(rb"-----END ([A-Z0-9 ]+)-----")


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """All of it, checked, as PEM."""

    certificates: str
    """The server's own first."""
    key: str
    client_ca: str
    """Empty: clients show no certificates."""
    subject: str
    serial: str
    """In hexadecimal."""
    starts_at: float
    expires_at: float
    """Of the server's certificate, in Unix seconds."""
    client_ca_expires_at: float
    """Of the CA that ends last; 0: there is none."""


def read_material(
    settings: TlsSettings, now: datetime, passphrase: Secret | None = None
) -> TlsMaterial:
    """What the settings' files hold now. `passphrase`: of the key, if it has one.

    Raises ConfigError with setting, file, and what was expected.
    """
    assert settings.cert_file is not None
    assert settings.key_file is not None
    where = f"tls.cert_file: {settings.cert_file}"
    chain = _certificates(_read(settings.cert_file, "cert_file"), where)
    own = chain[0]
    _check_dates(own, now, where)
    key = _key(
        _read(settings.key_file, "key_file"), f"tls.key_file: {settings.key_file}", passphrase
    )
    if _public(own.public_key()) != _public(key.public_key()):
        raise ConfigError(
            f"tls.key_file: {settings.key_file} is not the key of the certificate in"
            f" {settings.cert_file} ({_name(own)}): expected its private key"
        )
    trusted: list[x509.Certificate] = []
    if settings.client_ca_file is not None:
        trusted = _trusted(settings.client_ca_file, now)
    return TlsMaterial(
        certificates=_pem(chain),
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        client_ca=_pem(trusted),
        subject=_name(own),
        serial=f"{own.serial_number:x}",
        starts_at=own.not_valid_before_utc.timestamp(),
        expires_at=own.not_valid_after_utc.timestamp(),
        client_ca_expires_at=max((c.not_valid_after_utc.timestamp() for c in trusted), default=0),
    )


def _read(path: Path, setting: str) -> bytes:
    try:
        # a FIFO would keep us waiting
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"tls.{setting}: {path} is no ordinary file")
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"tls.{setting}: {path} can't be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            f"tls.{setting}: {path} is too large: expected PEM of at most {MAX_FILE_BYTES} bytes"
        )
    # a file whose writer is in the middle of it must not pass for a shorter one
    if _BEGIN.findall(data) != _END.findall(data):
        raise ConfigError(f"tls.{setting}: {path} is cut off: a block of PEM has no end")
    return data


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _certificates(data: bytes, where: str) -> list[x509.Certificate]:
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise ConfigError(f"{where} has no certificate: expected PEM, -----BEGIN CERTIFICATE-----")
    try:
        found = x509.load_pem_x509_certificates(data)
        for certificate in found:
            read_all_of(certificate)
            _check_key_kind(certificate.public_key(), where)
    except UNREADABLE as error:
        raise ConfigError(f"{where} has a certificate that can't be read: {error}") from error
    return found


def _key(
    data: bytes, where: str, passphrase: Secret | None
) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = _opened(data, passphrase)
    except TypeError:
        raise ConfigError(
            f"{where} has a key with a passphrase: expected tls.key_passphrase, or a key without"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        # what the library says of a bad key is of no help, and may have parts of it
        del error
        also = ", and the passphrase of tls.key_passphrase" if passphrase is not None else ""
        raise ConfigError(f"{where} has no key that can be read: expected PEM{also}") from None
    _check_key_kind(key.public_key(), where)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return key


def _opened(data: bytes, passphrase: Secret | None) -> PrivateKeyTypes:
    """Raises TypeError where it has a passphrase and none is given, ValueError where it can't be read."""
    if passphrase is None or b"ENCRYPTED" not in data:
        return load_pem_private_key(data, None)
    return load_pem_private_key(data, passphrase.reveal())


def _check_key_kind(key: object, where: str) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise ConfigError(
                f"{where} has an RSA key of {key.key_size} bits: expected {MIN_RSA_BITS} or more"
            )
    elif not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise ConfigError(f"{where} has a key of another kind: expected RSA, P-256, P-384 or P-521")


def _check_dates(certificate: x509.Certificate, now: datetime, where: str) -> None:
    if certificate.not_valid_after_utc <= now:
        raise ConfigError(
            f"{where} has a certificate ({_name(certificate)}) that expired at"
            f" {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC: expected one that holds now"
        )
    if certificate.not_valid_before_utc > now:
        raise ConfigError(
            f"{where} has a certificate ({_name(certificate)}) that holds only from"
            f" {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC on: expected one that holds"
            " now"
        )


def _trusted(path: Path, now: datetime) -> list[x509.Certificate]:
    where = f"tls.client_ca_file: {path}"
    found = _certificates(_read(path, "client_ca_file"), where)
    for certificate in found:
        if not _is_ca(certificate):
            raise ConfigError(
                f"{where} has a certificate ({_name(certificate)}) that is no CA's: expected those"
                " of CAs alone"
            )
    # an old one beside a new one is how a CA is changed
    if all(certificate.not_valid_after_utc <= now for certificate in found):
        _check_dates(found[0], now, where)
    return found


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _pem(certificates: Sequence[x509.Certificate]) -> str:
    """Without what files have beside: comments, other blocks."""
    return "".join(c.public_bytes(Encoding.PEM).decode() for c in certificates)


def _public(key: object) -> bytes:
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"


def utc_now() -> datetime:
    """The time that certificates' dates are compared with."""
    return datetime.now(UTC)
