"""The names that a certificate says its owner has, as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

_ATTRIBUTES: Final = {
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "SN",
    NameOID.GIVEN_NAME: "GN",
    NameOID.TITLE: "title",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.ORGANIZATION_IDENTIFIER: "organizationIdentifier",
}
"""Those that OpenSSL, and so Envoy, writes otherwise than `cryptography` does."""


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """Of one certificate."""

    subject: str
    """As RFC 2253 writes it, with its escapes: without them `O=x` within a name would look like an organization."""
    uris: tuple[str, ...]
    dns: tuple[str, ...]


def names_of(certificate: x509.Certificate) -> CertificateNames:
    """Subject and alternative names."""
    names = _alternative_names(certificate)
    return CertificateNames(
        _printable(certificate.subject.rfc4514_string(_ATTRIBUTES)),
        tuple(_printable(n.value) for n in names if isinstance(n, x509.UniformResourceIdentifier)),
        tuple(_printable(n.value) for n in names if isinstance(n, x509.DNSName)),
    )


def _alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(found.value)


def _printable(text: str) -> str:
    """Bytes that are no printable ASCII as RFC 2253 writes them."""
    return "".join(chr(b) if 32 <= b < 127 else f"\\{b:02X}" for b in text.encode())
