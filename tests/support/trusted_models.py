"""Signed and encrypted models, policies they are served by, and certificates to sign with."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from penstock.artifacts_config import ArtifactsSettings, TrustRule
from penstock.secrets_config import SecretRef
from penstock.trust.artifact import Artifact, Judgement
from penstock.trust.kek import KeyEncryptionKey, KeyRing
from penstock.trust.signing import sign_version
from penstock.trust.staging import Staged, Staging
from penstock.trust.trust import Trust

NOW: Final = datetime.now(UTC)


class Workshop:
    """A model in a repository, the key that signs it, and the policy of a server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "models"
        self.model = self.repository / "m"
        write(self.model / "config.pbtxt", b"max_batch_size: 4\n")
        write(self.model / "1" / "model.py", b"# the model\n" * 100)
        write(self.model / "1" / "deep" / "weights.bin", os.urandom(3000))
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.public = write_public(folder / "release.pub", self.key)
        self.kek = KeyEncryptionKey(os.urandom(32))
        self.keys = {"env:KEK": self.kek}
        self.judgements: list[Judgement] = []
        self.now = NOW

    @property
    def ring(self) -> KeyRing:
        return KeyRing((self.kek,))

    def sign(self, version: int = 1, **options: Any) -> None:
        """Sign a version as it lies there now."""
        sign_version(self.model, version, self.key, **{"serial": 5, "ring": self.ring, **options})

    def rule(self, **fields: Any) -> TrustRule:
        """The policy: whatever this key has signed."""
        given = {"public_keys": () if "certificate_authorities" in fields else (self.public,)}
        return TrustRule(**{**given, **fields})

    def trust(self, *rules: TrustRule, links: Path | None = None, **settings: Any) -> Trust:
        """A server's; without rules, that of `rule`."""
        reference = SecretRef("env", "KEK")
        given = ArtifactsSettings(
            trust=rules or (self.rule(),),
            state_file=self.folder / "state" / "releases.json",
            **{"key_encryption_key": reference, **settings},
        )
        staging = Staging(self.folder / "staged", self.folder / "memory")
        trust = Trust(given, staging, self._read_secret, lambda: self.now, links)
        trust.observe(self.judgements.append)
        return trust

    def _read_secret(self, reference: SecretRef) -> bytes:
        return self.keys[str(reference)]._key

    def artifact(self, version: int = 1, tenant: str = "") -> Artifact:
        """The model's version as it lies there."""
        return Artifact(self.model.name, version, self.model, b"key", tenant)

    def stage(self, version: int = 1, *rules: TrustRule, **settings: Any) -> Staged | None:
        """Verify it and copy it, as a server would."""
        return self.trust(*rules, **settings).stage(self.artifact(version))

    def serve(self, version: int = 1, *rules: TrustRule) -> Staged:
        """And load it."""
        trust = self.trust(*rules)
        staged = trust.stage(self.artifact(version))
        assert staged is not None
        trust.loaded(staged)
        return staged


class Authority:
    """A certificate authority."""

    def __init__(self, name: str = "root", above: Authority | None = None, **options: Any) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.above = above
        self.certificate = _certificate(name, self.key, above, ca=True, **options)

    def issue(self, name: str = "signer", **options: Any) -> tuple[Any, x509.Certificate]:
        """A key, and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        return key, _certificate(name, key, self, ca=False, **options)

    def write(self, path: Path) -> Path:
        """Its certificate's file."""
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    above: Authority | None,
    *,
    ca: bool,
    days: tuple[float, float] = (-1, 10),
    purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CODE_SIGNING,),
    uri: str = "spiffe://example.org/release",
    path_length: int | None = None,
    critical: x509.ExtensionType | None = None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if above is None else above.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca, path_length), critical=True)
        .add_extension(
            x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True
        )
    )
    if not ca:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    if critical is not None:
        builder = builder.add_extension(critical, critical=True)
    return builder.sign(key if above is None else above.key, hashes.SHA256())


def write(path: Path, content: bytes) -> Path:
    """A file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_public(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    """The public key's file."""
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return write(path, public)


def write_private(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    """The key's file."""
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return write(path, private)


def content(folder: Path) -> dict[str, bytes]:
    """Path → content of all files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def package(*arguments: object) -> None:
    """OpenSSF's own command line."""
    command = [sys.executable, "-W", "ignore", "-m", "model_signing", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
