"""A certificate authority: makes itself, certifies a successor, and issues certificates. No files, no clock."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from penstock.certs.keys import PrivateKey, PublicKey, hash_for, make_key
from penstock.certs.request import CertRequest, KeyType
from penstock.errors import ConfigError

MAX_BACKDATE_S: Final = 3600
"""Certificates begin so long before they are made, a tenth of their lifetime at most: others' clocks may be late."""
ROOT_PATH_LENGTH: Final = 1
"""Below the root there may be its successor, certified by it: those who know the old root alone trust the new one."""

_EKU: Final = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey


@dataclass(frozen=True, slots=True)
class Authority:
    """A root."""

    certificate: x509.Certificate
    key: PrivateKey
    cross: x509.Certificate | None = None
    """The same key, certified by the root before it."""

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What a server or client shows after its own certificate."""
        return () if self.cross is None else (self.cross,)


def make_authority(
    name: str, now: datetime, lifetime_s: int, trust_domain: str = "", key_type: KeyType = "p256"
) -> Authority:
    """A new root. Its subject is one of its own: two of one name confuse those who look for an issuer by its name."""
    key = make_key(key_type)
    serial = x509.random_serial_number()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {serial % 2**32:08x}")])
    builder = _builder(subject, key.public_key(), serial, now, lifetime_s)
    builder = _as_authority(builder, ROOT_PATH_LENGTH, trust_domain)
    builder = _signed_by(builder, subject, key.public_key())
    return Authority(builder.sign(key, hash_for(key)), key)


def certify(old: Authority, new: Authority, now: datetime) -> Authority:
    """The new root, as one that the old one vouches for too, for as long as both last."""
    own = new.certificate
    lifetime = min(end_of(own), end_of(old.certificate)) - _whole(now)
    builder = _builder(
        own.subject,
        new.key.public_key(),
        x509.random_serial_number(),
        now,
        int(lifetime.total_seconds()),
    )
    builder = _as_authority(builder, 0, trust_domain_of(own))
    builder = _signed_by(builder, old.certificate.subject, old.key.public_key())
    return Authority(own, new.key, builder.sign(old.key, hash_for(old.key)))


def issue(authority: Authority, request: CertRequest, now: datetime) -> Issued:
    """A new key, and its certificate. It ends no later than the root. Raises ConfigError where that has ended."""
    end = end_of(authority.certificate)
    left_s = int((end - _whole(now)).total_seconds())
    if left_s <= 0:
        raise ConfigError(
            f"the CA expired on {end:%Y-%m-%d %H:%M:%S} UTC: penstock certs init --rotate"
        )
    key = make_key(request.key_type)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, request.name)])
    builder = _builder(
        subject,
        key.public_key(),
        x509.random_serial_number(),
        now,
        min(request.lifetime_s, left_s),
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(_key_usage(digital_signature=True), True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([_EKU[request.kind]]), False)
    names = list(_names(request))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    builder = _signed_by(builder, authority.certificate.subject, authority.key.public_key())
    return Issued(builder.sign(authority.key, hash_for(authority.key)), key)


def trust_domain_of(certificate: x509.Certificate) -> str:
    """Of a root: SPIFFE has it in its one URI. Empty: it has none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return next((u.removeprefix("spiffe://") for u in uris if u.startswith("spiffe://")), "")


def end_of(certificate: x509.Certificate) -> datetime:
    """When it expires."""
    return certificate.not_valid_after_utc


def _builder(
    subject: x509.Name, key: PublicKey, serial: int, now: datetime, lifetime_s: int
) -> x509.CertificateBuilder:
    start = _whole(now) - timedelta(seconds=min(MAX_BACKDATE_S, lifetime_s // 10))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(_whole(now) + timedelta(seconds=lifetime_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
    )


def _as_authority(
    builder: x509.CertificateBuilder, path_length: int, trust_domain: str
) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(True, path_length), True)
    builder = builder.add_extension(_key_usage(key_cert_sign=True), True)
    if trust_domain:
        uri = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), False)
    return builder


def _signed_by(
    builder: x509.CertificateBuilder, issuer: x509.Name, key: PublicKey
) -> x509.CertificateBuilder:
    # by its key alone: with name and serial a successor's two certificates could not stand for each other
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return builder.issuer_name(issuer).add_extension(identifier, False)


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _names(request: CertRequest) -> Iterator[x509.GeneralName]:
    yield from map(x509.DNSName, request.dns)
    yield from (x509.IPAddress(ipaddress.ip_address(text)) for text in request.ips)
    yield from map(x509.UniformResourceIdentifier, request.uris)


def _whole(now: datetime) -> datetime:
    """Certificates know no parts of seconds."""
    return now.replace(microsecond=0)
