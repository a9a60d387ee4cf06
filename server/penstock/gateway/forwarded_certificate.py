"""Who the client is by its certificate, as text: the header that Envoy sets, made here where there is no Envoy.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert
"""

from __future__ import annotations

import functools
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

_NAMES: Final = {
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "SN",
    NameOID.GIVEN_NAME: "GN",
    NameOID.TITLE: "title",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.ORGANIZATION_IDENTIFIER: "organizationIdentifier",
}
"""Attributes that OpenSSL writes otherwise than `cryptography` does."""


@functools.lru_cache(maxsize=1024)
def forwarded(certificate: bytes) -> bytes:
    """The header's value, of a client's certificate (DER) that was verified."""
    return _text(x509.load_der_x509_certificate(certificate))


@functools.lru_cache(maxsize=1024)
def forwarded_pem(certificate: bytes) -> bytes:
    """As `forwarded`, of PEM."""
    return _text(x509.load_pem_x509_certificate(certificate))


def forwarded_call(context: Any) -> bytes:
    """As `forwarded`, of the client of a gRPC call; empty: it has shown no certificate."""
    (pem,) = context.auth_context().get("x509_pem_cert") or (b"",)
    return forwarded_pem(pem) if pem else b""


def _text(certificate: x509.Certificate) -> bytes:
    subject = certificate.subject.rfc4514_string(_NAMES)
    parts = [f"Hash={certificate.fingerprint(SHA256()).hex()}", f'Subject="{_escaped(subject)}"']
    names = _alternative_names(certificate)
    uris = [_escaped(n.value) for n in names if isinstance(n, x509.UniformResourceIdentifier)]
    parts.extend(f"URI={uri}" for uri in uris or [""])
    parts.extend(f"DNS={_escaped(n.value)}" for n in names if isinstance(n, x509.DNSName))
    return ";".join(parts).encode("ascii")


def _alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(found.value)


def _escaped(text: str) -> str:
    """Bytes that are no printable ASCII as RFC 2253 writes them."""
    return "".join(chr(b) if 32 <= b < 127 else f"\\{b:02X}" for b in text.encode())
