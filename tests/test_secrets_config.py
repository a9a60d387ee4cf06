"""References to secrets, and the table of where they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from penstock.access_config import AccessSettings
from penstock.audit_config import AuditSettings
from penstock.config import Settings
from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from penstock.jwt_config import JwtIssuer
from penstock.secrets_config import SecretRef, SecretsSettings, variables_of


class Holder(BaseModel):
    password: SecretRef | None = None


@pytest.mark.parametrize(
    "text",
    [
        "file:/run/secrets/redis",
        "file:/a b/ü",
        "env:REDIS_PASSWORD",
        "vault:secret/penstock#redis",
        "vault:team/kv/deep/path#a field",
    ],
)
def test_references_are_read_and_shown_alike(text: str) -> None:
    assert str(SecretRef.parse(text)) == text
    held = Holder.model_validate({"password": text})
    assert held.password == SecretRef.parse(text)
    assert Holder.model_validate_json(held.model_dump_json()) == held


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hunter2", "expected file:/path, env:NAME, or vault:mount/path#field"),
        ("http://user:hunter2@x", "expected file:/path"),
        ("", "expected file:/path"),
        ("file:hunter2", "expected an absolute path"),
        ("file:", "expected an absolute path"),
        ("file:/hunter2\0", "expected an absolute path"),
        ("env:hunter-2", "expected the name of a variable"),
        ("env:", "expected the name of a variable"),
        ("vault:hunter2", "expected mount, path and field"),
        ("vault:secret/../sys/hunter2#a", "expected mount, path and field"),
        ("vault:/secret/hunter2#a", "expected mount, path and field"),
        ("vault:secret/x", "names no field, expected vault:secret/x#FIELD"),
        ("vault:secret/x#", "names no field"),
    ],
)
def test_what_is_no_reference_is_refused_and_not_shown(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        SecretRef.parse(text)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ValidationError) as refused:
        Holder.model_validate({"password": text})
    assert refused.value.errors()[0]["type"] == "secret_reference"
    assert "hunter2" not in refused.value.errors()[0]["msg"]


@given(st.text())
def test_any_text_is_a_reference_or_a_value_error(text: str) -> None:
    try:
        ref = SecretRef.parse(text)
    except ValueError:
        return
    assert SecretRef.parse(str(ref)) == ref


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "vault_auth token needs vault_token"),
        (
            {"vault_auth": "approle", "vault_role_id": "file:/x"},
            "vault_auth approle needs vault_secret_id",
        ),
        ({"vault_auth": "kubernetes"}, "vault_auth kubernetes needs vault_role"),
        ({"vault_token": "vault:secret/a#b"}, "vault_token: what opens Vault can't be kept in"),
    ],
)
def test_what_opens_vault_has_to_be_whole(values: dict[str, str], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        SecretsSettings.model_validate({"vault_address": "https://vault:8200", **values})


@pytest.mark.parametrize("address", ["vault:8200", "https://user:pass@vault", "ftp://vault"])
def test_vaults_address_is_a_url_without_a_password(address: str) -> None:
    with pytest.raises(ValidationError):
        SecretsSettings.model_validate({"vault_address": address, "vault_token": "env:T"})


def test_references_come_from_all_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(
        '[secrets]\nvault_address = "https://vault:8200"\nvault_token = "file:/from/file"\n'
        'vault_ca_file = "ca.pem"\n'
    )
    settings = load_settings({}, file)
    assert str(settings.secrets.vault_token) == "file:/from/file"
    assert settings.secrets.vault_ca_file == tmp_path / "ca.pem"
    monkeypatch.setenv("PENSTOCK_SECRETS_VAULT_TOKEN", "env:FROM_ENVIRONMENT")
    assert str(load_settings({}, file).secrets.vault_token) == "env:FROM_ENVIRONMENT"
    given = load_settings({"secrets_vault_token": "file:/from/flag"}, file)
    assert str(given.secrets.vault_token) == "file:/from/flag"
    given.write(tmp_path / "settings.json")
    assert Settings.read(tmp_path / "settings.json") == given


def test_a_secret_in_place_of_a_reference_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('[secrets]\nvault_token = "planted-hunter2"\n')
    with pytest.raises(ConfigError) as caught:
        load_settings({}, file)
    assert str(caught.value) == (
        f"{file}: secrets.vault_token: no reference to a secret: expected file:/path, env:NAME,"
        " or vault:mount/path#field"
    )


def test_a_table_that_does_not_fit_together_is_named(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('[secrets]\nvault_address = "https://vault:8200"\n')
    with pytest.raises(ConfigError) as caught:
        load_settings({}, file)
    assert str(caught.value) == f"{file}: secrets: vault_auth token needs vault_token"


def test_variables_that_settings_name() -> None:
    secrets = SecretsSettings(
        vault_address="https://vault:8200",
        vault_token=SecretRef.parse("env:VAULT"),
        vault_namespace="env:NO_SECRET",
    )
    audit = AuditSettings(sign_key=SecretRef.parse("file:/env:X"))
    issuer = JwtIssuer(
        issuer="https://i.example.org",
        audience=("a",),
        algorithms=("HS256",),
        secret=SecretRef.parse("env:SHARED"),
        tenant="t",
        default_roles=("user",),
    )
    access = AccessSettings(jwt=(issuer,))
    settings = Settings(secrets=secrets, audit=audit, access=access)
    assert variables_of(settings) == {"VAULT", "SHARED"}
    assert variables_of(Settings()) == set()
