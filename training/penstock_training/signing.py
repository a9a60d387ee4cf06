"""The key that signs versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Certificate

from penstock.errors import ConfigError, Untrusted
from penstock.secrets.source import SecretSource
from penstock.secrets_config import SecretRef, SecretsSettings
from penstock.trust.bundle import key_id, parse
from penstock.trust.copying import SIGNATURE
from penstock.trust.kek import KeyRing
from penstock.trust.manifest import from_payload
from penstock.trust.release import FILENAME, Release, parse_release
from penstock.trust.signers import load_certificates
from penstock.trust.signing import load_private_key, manifest_of, sign_version
from penstock_training.register_config import RegisterSettings

SIGNED_FILES: Final = (FILENAME, SIGNATURE)
"""What signing adds to a version's folder."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A key, and the certificates that say whose it is."""

    key: ec.EllipticCurvePrivateKey
    chain: Sequence[Certificate] = ()

    @property
    def name(self) -> str:
        """The subject of its certificate, or the key's id."""
        if self.chain:
            return self.chain[0].subject.rfc4514_string()
        return key_id(self.key.public_key())

    def sign(self, model_dir: Path, version: int) -> Release:
        """Sign a version's folder as it lies there, unless this key has done it already. Raises OSError, Untrusted."""
        signed = self.signed(model_dir, version)
        return signed or sign_version(model_dir, version, self.key, self.chain)

    def signed(self, model_dir: Path, version: int) -> Release | None:
        """The release that this key has signed, of exactly these files; None: it has not. Raises OSError."""
        folder = model_dir / str(version)
        try:
            bundle = parse((folder / SIGNATURE).read_bytes())
            if not bundle.is_by(self.key.public_key()) or list(bundle.chain) != list(self.chain):
                return None
            signed = from_payload(bundle.payload)
            if signed.model != model_dir.name:
                return None
            found = manifest_of(model_dir, version, KeyRing(()))
            if signed.of_version(version) != found.of_version(version):
                return None
            return parse_release((folder / FILENAME).read_bytes(), model_dir.name, version)
        except (FileNotFoundError, Untrusted):
            return None


def signer_of(settings: RegisterSettings) -> Signer | None:
    """The one that the settings name; None: versions are not signed. Raises ConfigError."""
    if settings.signing_key is None:
        return None
    password = None
    if settings.signing_key_password is not None:
        password = _secret(settings.signing_key_password)
    key = load_private_key(settings.signing_key, password)
    chain = [each for path in settings.signing_certificates for each in load_certificates(path)]
    if chain and chain[0].public_key() != key.public_key():
        raise ConfigError(
            f"register.signing_key: {settings.signing_key} is not the key of the first of signing_certificates"
        )
    return Signer(key, chain)


def _secret(reference: SecretRef) -> bytes:
    source = SecretSource(SecretsSettings())
    try:
        return source.get(reference).reveal().strip()
    finally:
        source.close()
