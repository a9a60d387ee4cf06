"""Who the client is by its certificate, as text: the header that Envoy sets, made here where there is no Envoy.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert
"""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from penstock.access.certificate_names import names_of
from penstock.certs.inspection import UNREADABLE


@functools.lru_cache(maxsize=1024)
def forwarded(certificate: bytes) -> bytes:
    """The header's value, of a client's certificate (DER) that was verified; empty: nobody can read it."""
    try:
        return _text(x509.load_der_x509_certificate(certificate))
    except UNREADABLE:
        return b""


@functools.lru_cache(maxsize=1024)
def forwarded_pem(certificate: bytes) -> bytes:
    """As `forwarded`, of PEM."""
    try:
        return _text(x509.load_pem_x509_certificate(certificate))
    except UNREADABLE:
        return b""


def forwarded_call(context: Any) -> bytes:
    """As `forwarded`, of the client of a gRPC call; empty: it has shown no certificate."""
    (pem,) = context.auth_context().get("x509_pem_cert") or (b"",)
    return forwarded_pem(pem) if pem else b""


def _text(certificate: x509.Certificate) -> bytes:
    names = names_of(certificate)
    parts = [
        f"Hash={certificate.fingerprint(SHA256()).hex()}",
        f'Cert="{quote(certificate.public_bytes(Encoding.PEM), safe="")}"',
        f'Subject="{names.subject}"',
        *(f"URI={uri}" for uri in names.uris or [""]),
        *(f"DNS={name}" for name in names.dns),
    ]
    return ";".join(parts).encode("ascii")
