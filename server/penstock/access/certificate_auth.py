"""Client certificates → principals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from cryptography import x509

from penstock.access.certificate_names import CertificateNames, names_of
from penstock.access.credentials import Credentials
from penstock.access.principal import Principal
from penstock.access_config import CertificateIdentity, matches
from penstock.certs.inspection import UNREADABLE

_CERTIFICATE: Final = re.compile(rb'(?:^|;)Cert="([^"]*)"')


class CertificateAuthenticator:
    """Knows those that the settings name. A certificate of nobody in particular is none."""

    generation = 0

    def __init__(self, identities: Sequence[CertificateIdentity]) -> None:
        self._identities = identities

    def refresh(self, now: float) -> None:
        """Settings don't change."""

    def authenticate(self, credentials: Credentials) -> Principal | None:
        """As Authenticator says."""
        names = names_in(credentials.certificate)
        if names is None:
            return None
        for identity in self._identities:
            if (name := _fitting(identity, names)) is not None:
                return Principal(f"cert:{name}", identity.tenant, identity.roles, "certificate")
        return None


def names_in(text: bytes) -> CertificateNames | None:
    """What the certificate in an `x-forwarded-client-cert` says; None: there is none in it that can be read.

    The names that stand beside it in the text are not looked at: with a `;` in it, a name would look like two. All that
    comes before the certificate is the front's own.
    https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert
    """
    found = _CERTIFICATE.search(text)
    if found is None:
        return None
    try:
        pem = unquote(found[1].decode("ascii")).encode()
        return names_of(x509.load_pem_x509_certificate(pem))
    except UNREADABLE:
        return None


def _fitting(identity: CertificateIdentity, names: CertificateNames) -> str | None:
    """The first name that fits. An identity has one pattern."""
    candidates = (
        (identity.uri, names.identity),
        (identity.dns, names.dns),
        (identity.subject, (names.subject,) if names.subject else ()),
    )
    for pattern, known in candidates:
        if pattern is not None:
            return next((name for name in known if matches(name, (pattern,))), None)
    return None
