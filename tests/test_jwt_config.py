"""`[[access.jwt]]`: what a configuration of an issuer may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config import Settings
from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from penstock.jwt_config import JwtIssuer, claim_names, is_trustworthy_url

MINIMUM = 'issuer = "https://id.example.org"\naudience = "penstock"\ndefault_roles = ["user"]\n'


def _read(folder: Path, table: str) -> Settings:
    file = folder / "penstock.toml"
    file.write_text(f"[[access.jwt]]\n{table}")
    return load_settings({}, file)


def _issuer(folder: Path, table: str = "") -> JwtIssuer:
    return _read(folder, MINIMUM + table).access.jwt[0]


def test_a_minimal_issuer(tmp_path: Path) -> None:
    """Public keys by discovery, all asymmetric algorithms, no secret."""
    issuer = _issuer(tmp_path)
    assert issuer.audience == ("penstock",)
    assert issuer.discovery_url == "https://id.example.org/.well-known/openid-configuration"
    assert {"RS256", "ES256", "EdDSA"} < issuer.accepted_algorithms
    assert not {"none", "HS256", "HS384", "HS512"} & issuer.accepted_algorithms


def test_a_secret_means_hs256_alone(tmp_path: Path) -> None:
    """Never an algorithm of public keys beside it."""
    assert _issuer(tmp_path, 'secret = "env:TOKEN_SECRET"').accepted_algorithms == {"HS256"}


def test_a_file_of_keys_is_beside_the_settings(tmp_path: Path) -> None:
    """Relative paths are."""
    assert _issuer(tmp_path, 'jwks_file = "keys.json"').jwks_file == tmp_path / "keys.json"


def test_settings_survive_the_way_to_the_gateway(tmp_path: Path) -> None:
    """They are written as JSON and read again."""
    table = (
        'roles_claim = "groups"\nrole_map = {ml = "user", ops = ["operator"]}\n'
        'required_claims = {azp = "web", email_verified = true, level = 3, amr = ["otp", "hwk"]}\n'
    )
    settings = _read(tmp_path, MINIMUM + table)
    settings.write(tmp_path / "settings.json")
    assert Settings.read(tmp_path / "settings.json").access == settings.access
    required = settings.access.jwt[0].required_claims
    assert required["email_verified"] is True
    assert required["level"] == 3
    assert settings.access.jwt[0].role_map == {"ml": ("user",), "ops": ("operator",)}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('algorithms = ["none"]', "algorithms"),
        ('algorithms = ["HS256"]', "HS256 needs a secret"),
        ('secret = "env:A"\nalgorithms = ["HS256", "RS256"]', "RS256 has no use for a secret"),
        ('secret = "env:A"\njwks_file = "keys.json"', "expected only one of them"),
        ('jwks_url = "http://id.example.org/keys"', "jwks_url: expected an https:// address"),
        ('jwks_url = "https://user:password@id.example.org"', "jwks_url: expected an https://"),
        ('jwks_url = "file:///etc/passwd"', "jwks_url: expected an https:// address"),
        ('tenant_claim = ""', "tenant_claim is empty"),
        ('tenant_claim = "a..b"', "tenant_claim"),
        ('roles_claim = "groups"', "roles_claim and role_map need each other"),
        ('roles_claim = "groups"\nrole_map = {a = "boss"}', "there is no role 'boss'"),
        ("leeway_secs = 3600", "leeway_secs"),
        ("max_token_bytes = 10", "max_token_bytes"),
        ("refresh_min_secs = 400", "refresh_min_secs is more than refresh_secs"),
        ("colour = 1", "there is no such setting"),
        (f"[[access.jwt]]\n{MINIMUM}", "there is one of this name before"),
    ],
)
def test_what_makes_no_sense_stops_the_start(tmp_path: Path, table: str, said: str) -> None:
    """By name."""
    with pytest.raises(ConfigError, match=said.replace("'", ".")):
        _issuer(tmp_path, table)


@pytest.mark.parametrize("missing", ["issuer", "audience", "default_roles"])
def test_what_can_not_be_left_out(tmp_path: Path, missing: str) -> None:
    """An issuer without an audience would take tokens that were made for others."""
    lines = [line for line in MINIMUM.splitlines() if not line.startswith(missing)]
    with pytest.raises(ConfigError, match=missing):
        _read(tmp_path, "\n".join(lines))


def test_an_empty_audience_is_none(tmp_path: Path) -> None:
    """As one that is left out."""
    with pytest.raises(ConfigError, match="audience"):
        _read(tmp_path, MINIMUM.replace('"penstock"', "[]"))


def test_an_issuer_that_is_no_address_needs_keys(tmp_path: Path) -> None:
    """Nothing can be discovered of it."""
    table = MINIMUM.replace("https://id.example.org", "our-issuer")
    with pytest.raises(ConfigError, match="issuer: expected an https"):
        _read(tmp_path, table)
    assert _read(tmp_path, table + 'jwks_file = "keys.json"').access.jwt[0].issuer == "our-issuer"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("", ()),
        ("tenant", ("tenant",)),
        ("realm_access.roles", ("realm_access", "roles")),
        (r"https://example\.com/tenant", ("https://example.com/tenant",)),
        (r"a\\.b", ("a\\", "b")),
    ],
)
def test_paths_of_claims(path: str, names: tuple[str, ...]) -> None:
    """Dots part names; a backslash makes the next character part of one."""
    assert claim_names(path) == names


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://id.example.org/keys?x=1", True),
        ("http://127.0.0.1:8080/keys", True),
        ("http://localhost/keys", True),
        ("http://[::1]:99/keys", True),
        ("http://10.0.0.1/keys", False),
        ("http://localhost.example.org/", False),
        ("https://", False),
        ("https://host:0/", False),
        ("https://host:99999/", False),
        ("https://host/#keys", False),
        ("https://a@host/", False),
        ("https://host/a b", False),
        ("https://host/\r\nX: y", False),
        ("https://höst/", False),
        ("ftp://localhost/", False),
        ("", False),
    ],
)
def test_what_addresses_keys_may_come_from(url: str, trusted: bool) -> None:
    """Nobody on the way may change them."""
    assert is_trustworthy_url(url) is trusted
