"""Who may have signed: keys, and authorities whose certificates may."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Certificate
from cryptography.x509.oid import ExtendedKeyUsageOID

from penstock.access_config import matches
from penstock.artifacts_config import ArtifactsSettings
from penstock.errors import CertificateExpired, ConfigError, SignatureInvalid, WrongKey
from penstock.trust.bundle import Bundle, key_id

CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
MAX_DEPTH: Final = 5
"""Certificates from the signer's to the authority's."""

_UNDERSTOOD: Final = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectAlternativeName,
)
"""Extensions that may be critical: all others forbid what they mean to those who do not know it."""


@dataclass(frozen=True, slots=True)
class Signers:
    """Those whom a rule trusts."""

    keys: Sequence[ec.EllipticCurvePublicKey]
    authorities: Sequence[Certificate]
    names: tuple[str, ...]
    """Patterns of the names that certificates may have."""

    def verify(self, bundle: Bundle, now: datetime) -> str:
        """The signer: a key's id, or a certificate's name. Raises WrongKey, SignatureInvalid, CertificateExpired."""
        return self._by_certificate(bundle, now) if bundle.chain else self._by_key(bundle)

    def _by_key(self, bundle: Bundle) -> str:
        if not self.keys:
            raise WrongKey("a bare key has signed it, and the policy trusts certificates only")
        known = {key_id(key): key for key in self.keys}
        if bundle.key_id in known:
            if not bundle.is_by(known[bundle.key_id]):
                raise SignatureInvalid("the signature does not fit what it covers")
            return bundle.key_id
        if not bundle.key_id:
            # as bundles of older versions of model-signing have it
            for name, key in known.items():
                if bundle.is_by(key):
                    return name
        shown = bundle.key_id[:16] or "some key"
        raise WrongKey(
            f"{shown!a} has signed it; the policy trusts {', '.join(k[:16] for k in known)}"
        )

    def _by_certificate(self, bundle: Bundle, now: datetime) -> str:
        if not self.authorities:
            raise WrongKey("a certificate has signed it, and the policy trusts bare keys only")
        leaf = bundle.chain[0]
        names = names_of(leaf)
        key = leaf.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not bundle.is_by(key):
            raise SignatureInvalid("the signature does not fit what it covers")
        check_chain(bundle.chain, self.authorities, now)
        _check_may_sign(leaf)
        for name in names:
            if matches(name, self.names):
                return name
        raise WrongKey(
            f"{', '.join(names)[:200]!a} has signed it; the policy trusts {', '.join(self.names)}"
        )


def names_of(certificate: Certificate) -> list[str]:
    """URIs, DNS names and e-mail addresses among the alternative names, and the subject."""
    found: list[str] = []
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        pass
    else:
        for kind in (x509.UniformResourceIdentifier, x509.DNSName, x509.RFC822Name):
            found += names.get_values_for_type(kind)
    return [*found, certificate.subject.rfc4514_string()]


def check_chain(
    chain: Sequence[Certificate], authorities: Sequence[Certificate], now: datetime
) -> None:
    """An authority stands above the first of the chain, by way of the others. Raises WrongKey, CertificateExpired."""
    current = chain[0]
    for depth in range(MAX_DEPTH):
        _check_valid(current, now)
        _check_extensions(current)
        if current in authorities:
            return
        above = next((a for a in authorities if _issued(a, current, depth)), None)
        if above is not None:
            _check_valid(above, now)
            return
        following = next(
            (c for c in chain[1:] if c != current and _issued(c, current, depth)), None
        )
        if following is None:
            break
        current = following
    raise WrongKey(
        f"the certificate of {chain[0].subject.rfc4514_string()[:200]!a} is of no authority that the policy trusts"
    )


def load_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Raises ConfigError."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: no public key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise ConfigError(f"{path}: expected an elliptic-curve key on {', '.join(CURVES)}")
    return key


def load_certificates(path: Path) -> list[Certificate]:
    """Raises ConfigError."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: no certificates in PEM") from error


def load_signers(
    keys: Iterable[Path], authorities: Iterable[Path], names: tuple[str, ...]
) -> Signers:
    """Raises ConfigError."""
    certificates = [each for path in authorities for each in load_certificates(path)]
    return Signers(tuple(map(load_public_key, keys)), tuple(certificates), names)


def check_rules(settings: ArtifactsSettings) -> None:
    """Whether all keys and authorities of all rules can be read. Raises ConfigError."""
    for number, rule in enumerate(settings.trust):
        with _of_setting(f"artifacts.trust.{number}.public_keys"):
            load_signers(rule.public_keys, (), ())
        with _of_setting(f"artifacts.trust.{number}.certificate_authorities"):
            load_signers((), rule.certificate_authorities, ())


@contextmanager
def _of_setting(name: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _issued(above: Certificate, below: Certificate, depth: int) -> bool:
    """Whether `above` may certify, and has certified `below`, which stands `depth` below the signer's own."""
    try:
        below.verify_directly_issued_by(above)
        constraints = above.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    if not constraints.ca:
        return False
    if constraints.path_length is not None and constraints.path_length < depth:
        return False
    try:
        usage = above.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.key_cert_sign


def _check_valid(certificate: Certificate, now: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now <= end:
        raise CertificateExpired(
            f"the certificate of {certificate.subject.rfc4514_string()[:200]!a} is valid from "
            f"{begin:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}"
        )


def _check_extensions(certificate: Certificate) -> None:
    for extension in certificate.extensions:
        if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            raise WrongKey(
                f"the certificate of {certificate.subject.rfc4514_string()[:200]!a} has the critical extension "
                f"{extension.oid.dotted_string}, which is not known here"
            )


def _check_may_sign(leaf: Certificate) -> None:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        allowed = usage.digital_signature
    except x509.ExtensionNotFound:
        allowed = False
    try:
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        allowed = ExtendedKeyUsageOID.CODE_SIGNING in purposes
    except x509.ExtensionNotFound:
        # without it all purposes are meant, if it may sign at all
        pass
    if not allowed:
        raise WrongKey(
            f"the certificate of {leaf.subject.rfc4514_string()[:200]!a} is not one to sign code with"
        )
