"""What a certificate is to say: checked here, so that no client's library refuses it later."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, Literal, get_args

import msgspec

from penstock.errors import ConfigError

Kind = Literal["server", "client"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
KeyType = Literal["p256", "p384", "rsa3072"]
KEY_TYPES: Final[tuple[str, ...]] = get_args(KeyType)

MAX_NAME: Final = 64
"""Longest common name that X.509 allows."""
MAX_LIFETIME_S: Final = 825 * 86_400
"""Apple's libraries refuse server certificates that live longer, those of private CAs too."""
LIFETIMES_S: Final = {"server": 30 * 86_400, "client": 7 * 86_400}
"""Where nothing else is said."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SPIFFE_PATH: Final = re.compile(r"(/[A-Za-z0-9._-]+)+")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_LOOPBACK: Final = ("127.0.0.1", "::1")


class CertRequest(msgspec.Struct, frozen=True):
    """One certificate, as it was asked for. It is kept beside it, and renewed by it."""

    kind: Kind
    name: str
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    lifetime_s: int = 0
    key_type: KeyType = "p256"

    @property
    def label(self) -> str:
        """As people write it."""
        return f"{self.kind}/{self.name}"


def make_request(
    kind: Kind,
    name: str,
    *,
    dns: Iterable[str] = (),
    ips: Iterable[str] = (),
    uris: Iterable[str] = (),
    lifetime_s: int | None = None,
    key_type: KeyType = "p256",
    trust_domain: str = "",
) -> CertRequest:
    """Check it all, and fill in what was not said. Raises ConfigError that names what is wrong."""
    check_name(name)
    checked_dns = [check_dns(text) for text in dns]
    checked_ips = [check_ip(text) for text in ips]
    if kind == "server" and not checked_dns and not checked_ips:
        checked_dns, checked_ips = _of_name(name)
    checked_uris = [check_uri(text, trust_domain) for text in uris]
    if trust_domain and not any(uri.startswith("spiffe://") for uri in checked_uris):
        checked_uris.append(check_uri(f"spiffe://{trust_domain}/{kind}/{name}", trust_domain))
    if trust_domain and len(checked_uris) > 1:
        raise ConfigError(
            f"{kind} {name}: in a trust domain a certificate has one URI, got {', '.join(checked_uris)}"
        )
    return CertRequest(
        kind=kind,
        name=name,
        dns=_distinct(checked_dns),
        ips=_distinct(checked_ips),
        uris=_distinct(checked_uris),
        lifetime_s=check_lifetime(LIFETIMES_S[kind] if lifetime_s is None else lifetime_s),
        key_type=key_type,
    )


def check_request(request: CertRequest) -> CertRequest:
    """One that was kept: somebody may have changed it. Raises ConfigError."""
    return make_request(
        request.kind,
        request.name,
        dns=request.dns,
        ips=request.ips,
        uris=request.uris,
        lifetime_s=request.lifetime_s,
        key_type=request.key_type,
    )


def check_name(name: str) -> str:
    """It becomes the common name, and a folder's. Raises ConfigError."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} can't be a certificate's name: expected 1 to {MAX_NAME} letters, digits"
            " and . _ @ -, the first of them a letter or a digit"
        )
    return name


def check_dns(text: str) -> str:
    """A host's name, `*` in place of its first part at most. Raises ConfigError."""
    name = text.lower()
    host = name.removeprefix("*.")
    labels = host.split(".")
    whole = len(name) <= 253 and all(map(_LABEL.fullmatch, labels))
    if not whole or (name.startswith("*.") and len(labels) < 2):
        raise ConfigError(
            f"{text[:80]!r} is no DNS name: expected one as host.example.org or *.example.org"
            " (others than ASCII's letters as xn--…)"
        )
    if labels[-1].isdigit():
        raise ConfigError(f"{text!r} is no DNS name: give an address by --ip")
    return name


def check_ip(text: str) -> str:
    """An IP address, in its one form. Raises ConfigError."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ConfigError(f"{text[:80]!r} is no IP address") from None
    if getattr(address, "scope_id", None):
        raise ConfigError(f"{text[:80]!r}: an address in a certificate has no zone")
    return str(address)


def check_uri(text: str, trust_domain: str = "") -> str:
    """A URI; of the trust domain where there is one and it is SPIFFE's. Raises ConfigError."""
    if not _URI.fullmatch(text) or len(text) > 2048:
        raise ConfigError(f"{text[:80]!r} is no URI: expected one as spiffe://example.org/loader")
    if not text.startswith("spiffe:"):
        return text
    domain, slash, path = text.removeprefix("spiffe://").partition("/")
    parts = path.split("/")
    known = text.startswith("spiffe://") and _TRUST_DOMAIN.fullmatch(domain)
    if not known or not _SPIFFE_PATH.fullmatch(slash + path) or {".", ".."} & set(parts):
        raise ConfigError(
            f"{text[:80]!r} is no SPIFFE ID: expected spiffe://TRUST-DOMAIN/PATH, of letters, digits"
            " and . _ -"
        )
    if trust_domain and domain != trust_domain:
        raise ConfigError(f"{text[:80]!r} is not of this CA's trust domain {trust_domain}")
    return text


def check_trust_domain(text: str) -> str:
    """As `example.org`. Raises ConfigError."""
    if not _TRUST_DOMAIN.fullmatch(text):
        raise ConfigError(
            f"{text[:80]!r} is no trust domain: expected lower-case letters, digits and . _ -,"
            " as example.org"
        )
    return text


def check_lifetime(seconds: int, longest_s: int = MAX_LIFETIME_S) -> int:
    """Raises ConfigError."""
    if not 1 <= seconds <= longest_s:
        raise ConfigError(
            f"a lifetime of {_span(seconds)} is not possible: expected 1s to {longest_s // 86_400}d"
        )
    return seconds


def _span(seconds: int) -> str:
    """In days, where it is a day or more."""
    return f"{seconds / 86_400:.6g} days" if seconds >= 86_400 else f"{seconds} s"


def _of_name(name: str) -> tuple[list[str], list[str]]:
    """Where a server is, of which only the name was said."""
    try:
        return [], [check_ip(name)]
    except ConfigError:
        pass
    try:
        return [check_dns(name)], list(_LOOPBACK) if name == "localhost" else []
    except ConfigError:
        raise ConfigError(
            f"server {name}: clients reach it by which name or address? Say it by --dns or --ip"
        ) from None


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
