"""Client certificates → principals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import unquote

from cryptography import x509

from penstock.access.certificate_names import NO_NAMES, names_of
from penstock.access.credentials import Credentials
from penstock.access.principal import Principal
from penstock.access_config import CertificateIdentity, matches
from penstock.certs.inspection import UNREADABLE

FIELDS: Final = ("uri", "dns", "subject")


class CertificateAuthenticator:
    """Knows those that the settings name. A certificate of nobody in particular is none."""

    generation = 0

    def __init__(self, identities: Sequence[CertificateIdentity]) -> None:
        self._identities = identities

    def refresh(self, now: float) -> None:
        """Settings don't change."""

    def authenticate(self, credentials: Credentials) -> Principal | None:
        """As Authenticator says."""
        if not credentials.certificate:
            return None
        said = names_in(credentials.certificate)
        for identity in self._identities:
            for field in FIELDS:
                pattern = getattr(identity, field)
                if pattern is None:
                    continue
                for name in said[field]:
                    if matches(name, (pattern,)):
                        return Principal(
                            f"cert:{name}", identity.tenant, identity.roles, "certificate"
                        )
        return None


def names_in(certificate: bytes) -> dict[str, list[str]]:
    """Subject and alternative names in the text of an `x-forwarded-client-cert`: those of the certificate in it, where
    there is one. It comes before all that its owner has chosen, and so can't be faked by a name with `;` in it.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert
    """
    found: dict[str, list[str]] = {field: [] for field in FIELDS}
    for key, value in _pairs(certificate.decode("latin-1")):
        field = key.lower()
        if field == "cert":
            return _names_of(value)
        if field in found and value:
            found[field].append(unquote(value) if field == "uri" else value)
    return found


def _names_of(quoted: str) -> dict[str, list[str]]:
    try:
        names = names_of(x509.load_pem_x509_certificate(unquote(quoted).encode()))
    except UNREADABLE:
        names = NO_NAMES
    subjects = [names.subject] if names.subject else []
    return {"uri": list(names.uris), "dns": list(names.dns), "subject": subjects}


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Key and value of each element; values may be quoted, and have quotes, backslashes, `;` and `=` in them."""
    position = 0
    while position < len(text):
        key, equals, _ = text[position:].partition("=")
        if not equals:
            return
        position += len(key) + 1
        if text[position : position + 1] == '"':
            value, position = _quoted(text, position + 1)
        else:
            end = text.find(";", position)
            end = len(text) if end < 0 else end
            value, position = text[position:end], end
        yield key.lstrip(";"), value


def _quoted(text: str, position: int) -> tuple[str, int]:
    """The value, and where the text goes on after its closing quote."""
    value = []
    while position < len(text) and text[position] != '"':
        if text[position] == "\\" and position + 1 < len(text):
            position += 1
        value.append(text[position])
        position += 1
    return "".join(value), position + 1
