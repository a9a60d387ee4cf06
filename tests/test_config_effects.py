"""Settings of security that would have no effect are refused, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli import main
from penstock.config_effects import check_effects
from penstock.config_sources import load_settings
from penstock.errors import ConfigError

REQUIRED = '[access]\nmode = "required"\n'
CERTIFICATE = '[[access.certificates]]\nuri = "spiffe://a/*"\ntenant = "a"\n'
CLIENTS = (
    '[tls]\ncert_file = "c"\nkey_file = "k"\nclient_ca_file = "ca"\nclient_auth = "optional"\n'
)
JWT = '[[access.jwt]]\nissuer = "https://i.example"\naudience = "a"\ndefault_roles = "user"\n'
ROLE = '[access.roles.reader]\nverbs = ["read_metadata"]\n'
REDIS = '[quotas]\nredis_url = "redis://localhost"\n'
ANONYMOUS = 'anonymous_roles = ["viewer"]\n'
AUDIT = "[audit]\ninferences = true\n"
KEY = '[audit]\nsign_key = "file:/k"\n'
FOLDER = 'folder = "audit"\n'


def check(tmp_path: Path, text: str) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(text)
    check_effects(load_settings({}, file))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CERTIFICATE + CLIENTS, 'access.certificates has no effect: expected access.mode "requi'),
        (JWT, 'access.jwt has no effect: expected access.mode "required"'),
        (ROLE, 'access.roles has no effect: expected access.mode "required"'),
        (
            "[access]\n" + ANONYMOUS,
            'access.anonymous_roles has no effect: expected access.mode "requ',
        ),
        (REDIS, 'quotas.redis_url has no effect: expected access.mode "required"'),
        (
            REQUIRED + CERTIFICATE,
            'access.certificates has no effect: expected tls.client_auth "optional" or "require"',
        ),
        (AUDIT, "audit.inferences has no effect: expected audit.folder"),
        (KEY, "audit.sign_key has no effect: expected audit.folder"),
    ],
)
def test_what_has_no_effect(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check(tmp_path, text)
    assert str(raised.value).startswith(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        REQUIRED + ANONYMOUS + ROLE + JWT + CERTIFICATE + CLIENTS + REDIS,
        AUDIT + FOLDER,
        KEY + FOLDER,
        # may be filled before the mode is on
        '[access]\ntenants_file = "t.db"\n',
    ],
)
def test_what_has(tmp_path: Path, text: str) -> None:
    check(tmp_path, text)


def test_the_server_does_not_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "penstock.toml").write_text(JWT)
    assert main(["serve", str(tmp_path), f"--config={tmp_path / 'penstock.toml'}"]) == 2
    assert capsys.readouterr().err.startswith("penstock: access.jwt has no effect: ")
