"""Secrets that settings name have to be there at the start, and what they should be."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from penstock.audit.signing import Signer
from penstock.commands.secret_check import check_secrets
from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from served import Served
from vault_server import Token, VaultServer, serve_vault

JWT = '[[access.jwt]]\nissuer = "i"\naudience = "a"\ndefault_roles = "user"\nsecret = "{}"\n'
GOOD_KEY = base64.b64encode(os.urandom(32)).decode()
VAULT = """
[secrets]
vault_address = "{}"
vault_token = "file:{}"
vault_timeout_secs = 1
"""


def check(folder: Path, text: str) -> None:
    config = folder / "penstock.toml"
    config.write_text(text)
    check_secrets(load_settings({}, config))


def secret(folder: Path, name: str, content: str) -> str:
    """A reference to a file that holds it."""
    path = folder / name
    path.write_text(content)
    path.chmod(0o600)
    return f"file:{path}"


def problem(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        check(folder, text)
    return str(raised.value)


@pytest.mark.parametrize(
    ("content", "why"), [("", " is empty"), (" \t\n", ": it is blank: anybody could sign webhooks")]
)
def test_webhooks_are_signed_with_something(tmp_path: Path, content: str, why: str) -> None:
    where = secret(tmp_path, "webhook", content)
    text = problem(tmp_path, f'[registry]\nwebhook_secret = "{where}"\n')
    assert text.startswith(f"registry.webhook_secret: {where}{why}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("artifacts.key_encryption_key", '[artifacts]\nkey_encryption_key = "{}"\n'),
        (
            "artifacts.old_key_encryption_keys.0",
            '[artifacts]\nold_key_encryption_keys = ["{}"]\n',
        ),
        ("audit.sign_key", '[audit]\nfolder = "log"\nsign_key = "{}"\n'),
        ("quotas.redis_password", '[quotas]\nredis_password = "{}"\n'),
        ("access.jwt.0.secret", JWT),
        (
            "tls.key_passphrase",
            '[tls]\ncert_file = "c"\nkey_file = "k"\nkey_passphrase = "{}"\n',
        ),
    ],
)
def test_one_that_is_not_there(tmp_path: Path, name: str, text: str) -> None:
    ref = f"file:{tmp_path / 'nope'}"
    assert problem(tmp_path, text.format(ref)) == (
        f"{name}: {ref} can't be read: No such file or directory"
    )
    vault = problem(tmp_path, text.format("vault:secret/p#f"))
    assert (
        vault == f"{name}: vault:secret/p#f: where Vault is isn't said: set secrets.vault_address"
    )


@pytest.mark.parametrize(
    ("text", "content", "expected"),
    [
        (
            '[artifacts]\nkey_encryption_key = "{}"\n',
            "short",
            "artifacts.key_encryption_key: {}: expected a key of 32 bytes",
        ),
        (
            '[audit]\nfolder = "log"\nsign_key = "{}"\n',
            "no PEM",
            "audit.sign_key: {}: expected an Ed25519 private key in PEM",
        ),
        (JWT, "short", "access.jwt.0.secret: {}: a secret of 5 bytes, expected 32 at least"),
    ],
)
def test_one_that_is_not_what_it_should_be(
    tmp_path: Path, text: str, content: str, expected: str
) -> None:
    ref = secret(tmp_path, "it", content)
    assert problem(tmp_path, text.format(ref)).startswith(expected.format(ref))


def test_all_are_there(tmp_path: Path) -> None:
    key = secret(tmp_path, "kek", GOOD_KEY)
    sign_key = secret(tmp_path, "pem", Signer.generate().private_pem().decode())
    check(
        tmp_path,
        f'[artifacts]\nkey_encryption_key = "{key}"\nold_key_encryption_keys = ["{key}"]\n'
        f'[audit]\nfolder = "log"\nsign_key = "{sign_key}"\n'
        + JWT.format(secret(tmp_path, "shared", "s" * 32)),
    )


def test_an_audit_log_that_may_go_on_without_its_key(tmp_path: Path) -> None:
    check(
        tmp_path,
        '[audit]\nfolder = "log"\nsign_key = "file:/nope"\nwhen_it_cant_be_written = "go_on"\n',
    )


def test_vault(tmp_path: Path) -> None:
    token = secret(tmp_path, "token", "hvs.one")
    artifacts = '[artifacts]\nkey_encryption_key = "vault:secret/penstock#{}"\n'
    with serve_vault() as vault:
        _have(vault, models=GOOD_KEY)
        settings = VAULT.format(vault.address, token.removeprefix("file:"))
        check(tmp_path, settings + artifacts.format("models"))
        text = problem(tmp_path, settings + artifacts.format("other"))
        assert text.startswith(
            "artifacts.key_encryption_key: vault:secret/penstock#other: there is no such field"
        )
    text = problem(tmp_path, settings + artifacts.format("models"))
    assert text.startswith("artifacts.key_encryption_key: vault:secret/penstock#models: ")


def _have(vault: VaultServer, **fields: str) -> None:
    vault.tokens["hvs.one"] = Token(3600)
    vault.secrets["secret/penstock"] = dict(fields)


@pytest.mark.e2e
def test_the_server_does_not_start_without(tmp_path: Path) -> None:
    served = Served(
        tmp_path, "grpcio", f"--artifacts-key-encryption-key=file:{tmp_path / 'nope.kek'}"
    )
    try:
        assert served.process.wait(60) == 2
        (line,) = served.log.splitlines()
        assert line == (
            f"penstock: artifacts.key_encryption_key: file:{tmp_path / 'nope.kek'} can't be read: No such file or"
            " directory"
        )
        assert not served.banner
    finally:
        served.close()
