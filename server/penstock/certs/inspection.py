"""What a certificate says, and how it stands with its life."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from penstock.errors import ConfigError

State = Literal["valid", "due", "expired", "not yet valid", "retired"]
DUE_AFTER: Final = 2 / 3
"""Of its life: what is older is renewed."""

UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for a certificate, or a part of one, that it can't read."""


class CertInfo(msgspec.Struct, frozen=True):
    """One certificate, as `penstock certs list` shows it."""

    kind: str
    """ca, server or client."""
    name: str
    serial: str
    """Hexadecimal."""
    issuer: str
    dns: tuple[str, ...]
    ips: tuple[str, ...]
    uris: tuple[str, ...]
    starts_at: datetime
    ends_at: datetime
    state: State
    by_current_ca: bool
    """It is the CA that issues now, or issued by that."""
    path: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All that it stands for."""
        dns = (f"DNS:{name}" for name in self.dns)
        return (*dns, *(f"IP:{ip}" for ip in self.ips), *self.uris)

    @property
    def due_at(self) -> datetime:
        """When it should be renewed."""
        return due_at(self.starts_at, self.ends_at)

    def should_renew(self) -> bool:
        """It is past two thirds of its life, or of an older CA."""
        return self.state in ("due", "expired") or not self.by_current_ca


def inspect(
    certificate: x509.Certificate,
    kind: str,
    now: datetime,
    current: x509.Certificate | None,
    path: str = "",
) -> CertInfo:
    """`current`: the CA that issues now."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    starts_at, ends_at = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return CertInfo(
        kind=kind,
        name=common_name(certificate.subject),
        serial=f"{certificate.serial_number:x}",
        issuer=common_name(certificate.issuer),
        dns=tuple(names.get_values_for_type(x509.DNSName)),
        ips=tuple(map(str, names.get_values_for_type(x509.IPAddress))),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
        starts_at=starts_at,
        ends_at=ends_at,
        state=state_of(starts_at, ends_at, now),
        by_current_ca=current is not None and certificate.issuer == current.subject,
        path=path,
    )


def due_at(starts_at: datetime, ends_at: datetime) -> datetime:
    """When two thirds of it are over."""
    return starts_at + (ends_at - starts_at) * DUE_AFTER


def state_of(starts_at: datetime, ends_at: datetime, now: datetime) -> State:
    """Also at its very last second it is valid."""
    if now > ends_at:
        return "expired"
    if now < starts_at:
        return "not yet valid"
    return "due" if now >= due_at(starts_at, ends_at) else "valid"


def common_name(name: x509.Name) -> str:
    """The whole name where there is no common one."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def to_pem(*certificates: x509.Certificate) -> bytes:
    """One after the other."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def from_pem(pem: bytes, where: str) -> list[x509.Certificate]:
    """One at least. Raises ConfigError that names `where`."""
    try:
        found = x509.load_pem_x509_certificates(pem)
    except UNREADABLE:
        raise ConfigError(f"{where} is no certificate: expected PEM") from None
    try:
        for certificate in found:
            read_all_of(certificate)
    except UNREADABLE as error:
        raise ConfigError(f"{where} has a certificate that can't be read: {error}") from None
    return found


def read_all_of(certificate: x509.Certificate) -> None:
    """Its parts are parsed when they are asked for: what is wrong with one is found out here. Raises UNREADABLE."""
    _ = certificate.subject, certificate.issuer, certificate.extensions
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc


def utc_now() -> datetime:
    """The clock that certificates go by."""
    return datetime.now(UTC)


def shown(span: timedelta) -> str:
    """As `29d`, `5h`, `12m`, `3s`."""
    seconds = int(abs(span.total_seconds()))
    for unit, length_s in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds // length_s}{unit}"
    return f"{seconds}s"
