"""The names that a certificate says its owner has, as text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from penstock.certs.inspection import UNREADABLE

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
_DOTS: Final = re.compile(r"/\.\.?(?=/|$)")


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """Of one certificate."""

    subject: str
    """As RFC 2253 writes it, with its escapes: without them `O=x` within a name would look like an organization."""
    uris: tuple[str, ...]
    dns: tuple[str, ...]

    @property
    def identity(self) -> tuple[str, ...]:
        """The URI; none where there are several, or one that climbs in its path: no SPIFFE identity may (X.509-SVID,
        section 2; SPIFFE-ID, section 2.2)."""
        return self.uris if len(self.uris) == 1 and not _DOTS.search(self.uris[0]) else ()


def names_of(certificate: x509.Certificate) -> CertificateNames:
    """Subject and alternative names, those that can be read: TLS libraries let pass what `cryptography` does not."""
    names = _alternative_names(certificate)
    return CertificateNames(
        _subject(certificate),
        _texts(n.value for n in names if isinstance(n, x509.UniformResourceIdentifier)),
        _texts(n.value for n in names if isinstance(n, x509.DNSName)),
    )


def _subject(certificate: x509.Certificate) -> str:
    try:
        return _printable(certificate.subject.rfc4514_string(_ATTRIBUTES))
    except UNREADABLE:
        return ""


def _alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, *UNREADABLE):
        return []
    return list(found.value)


def _texts(names: Iterable[str]) -> tuple[str, ...]:
    """Without those that have control characters: `*.example` must not take `evil.test\\0.example`, which for others is
    `evil.test`."""
    return tuple(_printable(name) for name in names if min(name, default=" ") >= " ")


def _printable(text: str) -> str:
    """Bytes that are no printable ASCII as RFC 2253 writes them."""
    return "".join(chr(b) if 32 <= b < 127 else f"\\{b:02X}" for b in text.encode())
