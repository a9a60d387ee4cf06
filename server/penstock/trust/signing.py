"""Signs model versions: a release.json that names the version and its serial number, and a signature over all files."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Certificate

from penstock.errors import ConfigError, InvalidRequest
from penstock.trust.bundle import sign
from penstock.trust.copying import SIGNATURE
from penstock.trust.folder import OpenFolder, opened
from penstock.trust.kek import KeyRing
from penstock.trust.manifest import Manifest, to_payload
from penstock.trust.release import FILENAME, Release
from penstock.trust.sealed import CHUNK_BYTES, SUFFIX, unsealed
from penstock.trust.signers import CURVES

GIT: Final = (".git", ".gitattributes", ".github", ".gitignore")
"""As model-signing has it."""


def sign_version(
    model_dir: Path,
    version: int,
    key: ec.EllipticCurvePrivateKey,
    chain: Sequence[Certificate] = (),
    *,
    serial: int | None = None,
    ring: KeyRing | None = None,
) -> Release:
    """Write `release.json` and `model.sig` into the version's folder. `serial`: none: the time in milliseconds.

    Encrypted files are signed by what is in them: `ring` opens them. Raises InvalidRequest, Untrusted, OSError.
    """
    folder = model_dir / str(version)
    if not folder.is_dir():
        raise InvalidRequest(f"{folder}: there is no such version")
    release = Release(
        model=model_dir.name,
        version=version,
        serial=time.time_ns() // 1_000_000 if serial is None else serial,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    content = msgspec.json.format(msgspec.json.encode(release), indent=1)
    write_whole(folder / FILENAME, content + b"\n")
    manifest = manifest_of(model_dir, version, ring or KeyRing(()))
    write_whole(folder / SIGNATURE, sign(to_payload(manifest), key, chain))
    return release


def manifest_of(model_dir: Path, version: int, ring: KeyRing) -> Manifest:
    """All files that the version is loaded from, as they are now. Raises Untrusted, OSError."""
    with opened(model_dir) as folder:
        ignored = _ignored(folder, version)
        unsigned = Manifest(model_dir.name, "sha256", {}, ignored)
        files = {}
        for stored, source in folder.files(version, unsigned.ignores):
            path = stored.removesuffix(SUFFIX)
            if path in files:
                raise InvalidRequest(f"{path!a} is there twice: in plain, and encrypted")
            digest = hashlib.sha256()
            chunks = (
                iter(lambda: source.read(CHUNK_BYTES), b"")  # noqa: B023 - it is used up in this turn
                if stored == path
                else unsealed(source, ring, model_dir.name, path)
            )
            for chunk in chunks:
                digest.update(chunk)
            files[path] = digest.digest()
    return Manifest(model_dir.name, "sha256", files, ignored)


def load_private_key(path: Path, password: bytes | None) -> ec.EllipticCurvePrivateKey:
    """Raises ConfigError, which does not show the key."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, TypeError):
        raise ConfigError(
            f"{path}: no private key in PEM, or its password is another one"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise ConfigError(f"{path}: expected an elliptic-curve key on {', '.join(CURVES)}")
    return key


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """The file is there as a whole, or as it was. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _ignored(folder: OpenFolder, version: int) -> frozenset[str]:
    others = [str(number) for number in folder.versions() if number != version]
    own = (SIGNATURE, f"{version}/{SIGNATURE}", "__pycache__", f"{version}/__pycache__")
    return frozenset((*GIT, *own, *others))
