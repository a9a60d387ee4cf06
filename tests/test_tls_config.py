"""`[tls]`: what goes together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from penstock.tls_config import TlsSettings

PAIR = {"tls_cert_file": "c.pem", "tls_key_file": "k.pem"}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_nothing_set_is_plain_text() -> None:
    found = load_settings({}).tls
    assert found == TlsSettings()
    assert not found.enabled
    assert found.files == ()


def test_paths_are_beside_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "penstock.toml"
    file.write_text('[tls]\ncert_file = "c.pem"\nkey_file = "/k.pem"\n')
    found = load_settings({}, file).tls
    assert found.enabled
    assert found.files == (tmp_path / "sub" / "c.pem", Path("/k.pem"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tls_cert_file": "c.pem"}, "tls.cert_file needs tls.key_file"),
        ({"tls_key_file": "k.pem"}, "tls.key_file needs tls.cert_file and tls.key_file"),
        ({"tls_client_auth": "require"}, "tls.client_auth needs tls.cert_file"),
        ({**PAIR, "tls_client_auth": "require"}, "tls.client_auth require needs tls.client_ca_f"),
        ({**PAIR, "tls_client_ca_file": "ca.pem"}, "tls.client_ca_file needs tls.client_auth opt"),
    ],
)
def test_what_does_not_go_together(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(given)
    assert words in str(caught.value)


def test_the_access_log_is_no_field_of_the_table_access() -> None:
    assert load_settings({"access_log": "true"}).access_log
