"""`penstock models sign`, `verify`, `encrypt`, `decrypt`, `rewrap` and `keygen`: models as files."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from penstock.artifacts_config import ArtifactsSettings, Require, TrustRule
from penstock.commands import releases
from penstock.commands.new_files import write_new
from penstock.commands.releases import ConfigFile
from penstock.config import Settings
from penstock.config_sources import load_settings
from penstock.errors import AlreadyExists, ConfigError, LoadFailed, Untrusted
from penstock.repository.folders import versions_in
from penstock.secrets.source import SecretSource
from penstock.secrets_config import SecretRef
from penstock.trust.artifact import Artifact
from penstock.trust.at_rest import decrypt_version, encrypt_version, rewrap_version
from penstock.trust.kek import KEY_BYTES, KeyRing, key_ring
from penstock.trust.signers import load_certificates
from penstock.trust.signing import load_private_key, sign_version
from penstock.trust.staging import Staging
from penstock.trust.trust import Trust
from penstock.wording import counted

ModelFolder = Annotated[
    Path, typer.Argument(metavar="MODEL_FOLDER", help="The model's folder in its repository.")
]
Versions = Annotated[
    list[int] | None, typer.Option("--version", help="Only this version. Repeatable.")
]
Keks = Annotated[
    list[str] | None,
    typer.Option(
        "--kek",
        metavar="REFERENCE",
        help="Where the key-encryption key is, as file:/path, env:NAME or vault:mount/path#field. Repeatable: the "
        "first encrypts, all decrypt. None: those of the settings.",
    ),
]
PRIVATE: Final = 0o600


def register(app: typer.Typer) -> None:
    """Add the commands to `penstock models`."""
    for name, command in (
        ("sign", sign),
        ("verify", verify),
        ("encrypt", encrypt),
        ("decrypt", decrypt),
        ("rewrap", rewrap),
        ("keygen", keygen),
    ):
        app.command(name)(command)
    app.add_typer(releases.app, name="trust")


def sign(
    folder: ModelFolder,
    key: Annotated[Path, typer.Option("--key", help="Private key (PEM, elliptic curve).")],
    certificate: Annotated[
        list[Path] | None,
        typer.Option(
            "--certificate", help="The key's certificate, then those above it. Repeatable."
        ),
    ] = None,
    version: Versions = None,
    serial: Annotated[
        int | None,
        typer.Option(
            min=0, help="Serial number, higher than that of any release before; none: the time."
        ),
    ] = None,
    password: Annotated[
        str | None,
        typer.Option("--key-password", metavar="REFERENCE", help="Where the key's password is."),
    ] = None,
    kek: Keks = None,
    config: ConfigFile = None,
) -> None:
    """Sign versions of a model: all their files, and those that all versions share.

    \f
    Raises PenstockError with one line for a person.
    """
    settings = load_settings({}, config)
    secret = None if password is None else _secrets(settings)(_reference(password)).strip()
    private = load_private_key(key, secret)
    chain = [each for path in certificate or () for each in load_certificates(path)]
    if chain and chain[0].public_key() != private.public_key():
        raise ConfigError(f"{key} is not the key of the first certificate")
    ring = _ring(settings, kek)
    folder = folder.absolute()
    for number in _versions(folder, version):
        release = sign_version(folder, number, private, chain, serial=serial, ring=ring)
        typer.echo(f"signed {folder.name}/{number}, serial {release.serial}")


def verify(
    folder: ModelFolder,
    public_key: Annotated[
        list[Path] | None, typer.Option("--public-key", help="A key to trust. Repeatable.")
    ] = None,
    authority: Annotated[
        list[Path] | None,
        typer.Option("--ca", help="An authority to trust, with --signer. Repeatable."),
    ] = None,
    signer: Annotated[
        list[str] | None,
        typer.Option(
            "--signer", help="Pattern of names that its certificates may have. Repeatable."
        ),
    ] = None,
    require_release: Annotated[
        bool,
        typer.Option(help="The signature has to cover a release.json."),
    ] = True,
    version: Versions = None,
    kek: Keks = None,
    config: ConfigFile = None,
) -> None:
    """Verify versions of a model as a server does: by the keys given, or else by the policy of the settings.

    \f
    Raises PenstockError with one line for a person.
    """
    settings = load_settings({}, config)
    artifacts = settings.artifacts
    with tempfile.TemporaryDirectory(prefix="penstock-verify-") as name:
        if public_key or authority:
            rule = _rule(public_key or (), authority or (), signer or (), require_release)
            artifacts = artifacts.model_copy(
                update={"trust": (rule,), "state_file": Path(name) / "releases.json"}
            )
        if kek:
            first, *others = map(_reference, kek)
            artifacts = artifacts.model_copy(
                update={"key_encryption_key": first, "old_key_encryption_keys": tuple(others)}
            )
        staging = Staging(Path(name) / "plain", Path(name) / "decrypted")
        trust = Trust(artifacts, staging, _secrets(settings), has_clients=False)
        _verify_all(trust, folder.absolute(), version)


def encrypt(
    folder: ModelFolder, version: Versions = None, kek: Keks = None, config: ConfigFile = None
) -> None:
    """Encrypt the files in the version folders; sign before, or give --kek when signing.

    \f
    Raises PenstockError with one line for a person.
    """
    _convert(folder, version, kek, config, encrypt_version, "encrypted", "encrypted already")


def decrypt(
    folder: ModelFolder, version: Versions = None, kek: Keks = None, config: ConfigFile = None
) -> None:
    """Decrypt the files in the version folders.

    \f
    Raises PenstockError with one line for a person.
    """
    _convert(folder, version, kek, config, decrypt_version, "decrypted", "not encrypted")


def rewrap(
    folder: ModelFolder, version: Versions = None, kek: Keks = None, config: ConfigFile = None
) -> None:
    """Have the first key-encryption key open all encrypted files, and the others none. Signatures stay what they are.

    \f
    Raises PenstockError with one line for a person.
    """
    _convert(
        folder,
        version,
        kek,
        config,
        rewrap_version,
        "rewrapped",
        "opened by that key alone already",
    )


def keygen(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="Makes NAME.key and NAME.pub.")],
    kek: Annotated[
        bool, typer.Option("--kek", help="Make a key-encryption key, NAME.kek, instead.")
    ] = False,
) -> None:
    """Make a pair of keys to sign with, or a key-encryption key.

    \f
    Raises AlreadyExists, PenstockError.
    """
    if kek:
        _create(name.with_name(f"{name.name}.kek"), base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
        return
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _create(name.with_name(f"{name.name}.key"), private)
    _create(name.with_name(f"{name.name}.pub"), public, 0o644)


def _reference(text: str) -> SecretRef:
    """Raises ConfigError."""
    try:
        return SecretRef.parse(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _verify_all(trust: Trust, folder: Path, versions: Sequence[int] | None) -> None:
    if trust.rule_for(folder.name) is None:
        raise ConfigError(
            f"no policy asks for a signature of {folder.name!a}; expected --public-key or --ca, or [[artifacts.trust]]"
        )
    for number in _versions(folder, versions):
        try:
            staged = trust.stage(Artifact(folder.name, number, folder, b""))
        except Untrusted as error:
            raise LoadFailed(f"{folder.name}/{number}: {error}") from error
        assert staged is not None
        found = staged.verified
        staged.close()
        typer.echo(f"verified {folder.name}/{number}, serial {found.serial}, by {found.signer}")


def _convert(
    folder: Path,
    versions: Sequence[int] | None,
    kek: Sequence[str] | None,
    config: Path | None,
    convert: Callable[[Path, int, KeyRing], int],
    word: str,
    otherwise: str,
) -> None:
    """`otherwise`: what a version is of which no file was to be changed."""
    folder = folder.absolute()
    ring = _ring(load_settings({}, config), kek)
    for number in _versions(folder, versions):
        count = convert(folder, number, ring)
        name = f"{folder.name}/{number}"
        typer.echo(
            f"{word} {counted(count, 'file')} of {name}" if count else f"{name} is {otherwise}"
        )


def _versions(folder: Path, wanted: Sequence[int] | None) -> Sequence[int]:
    try:
        found = versions_in(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: can't be read: {error.strerror}") from error
    if missing := set(wanted or ()) - set(found):
        raise ConfigError(f"{folder}: there is no version {min(missing)}")
    if not found:
        raise ConfigError(f"{folder}: no version folder (a number, such as 1/); expected a model's")
    return wanted or found


def _rule(
    keys: Sequence[Path], authorities: Sequence[Path], signers: Sequence[str], release: bool
) -> TrustRule:
    require: Require = "signed"
    try:
        return TrustRule(
            require=require,
            public_keys=tuple(keys),
            certificate_authorities=tuple(authorities),
            signers=tuple(signers),
            require_release=release,
        )
    except ValueError:
        raise ConfigError("--ca needs --signer: whom of all that it has certified") from None


def _ring(settings: Settings, kek: Sequence[str] | None) -> KeyRing:
    artifacts: ArtifactsSettings = settings.artifacts
    references = [_reference(each) for each in kek or ()]
    if not references and artifacts.key_encryption_key is not None:
        references = [artifacts.key_encryption_key, *artifacts.old_key_encryption_keys]
    return key_ring(references, _secrets(settings))


def _secrets(settings: Settings) -> Callable[[SecretRef], bytes]:
    source = SecretSource(settings.secrets)
    return lambda reference: source.get(reference).reveal()


def _create(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    try:
        write_new(path, content, mode)
    except FileExistsError:
        raise AlreadyExists(f"{path} is there already") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be made: {error.strerror}") from error
    typer.echo(f"wrote {path}")
