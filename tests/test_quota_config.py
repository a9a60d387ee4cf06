"""`[quotas]`: what may be said of Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config_sources import load_settings
from penstock.errors import ConfigError


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ('redis_url = "http://h"', "quotas.redis_url: expected redis://host:6379/0"),
        ('redis_url = "redis:///0"', "the URL names no host"),
        ('redis_url = "unix://"', "the URL names no host, or no path"),
        ('redis_url = "redis://h:99999"', "Port out of range"),
        ('redis_url = "redis://h/zero"', "the database's number after the host"),
        ('redis_url = "redis://h/0?ssl=1"', "no ? and no #"),
        ('redis_prefix = "a b"', "quotas.redis_prefix"),
        ('when_redis_is_away = "wait"', "'local', 'refuse' or 'allow'"),
        ('redis_ca_file = "ca.pem"', "redis_ca_file needs a redis_url of rediss://"),
        (
            'redis_url = "rediss://h"\nredis_cert_file = "c.pem"',
            "redis_cert_file and redis_key_file need each other",
        ),
        ("redis_timeout_secs = 0", "quotas.redis_timeout_secs"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, toml: str, expected: str) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(f"[quotas]\n{toml}\n")
    with pytest.raises(ConfigError) as raised:
        load_settings({}, file)
    assert expected in str(raised.value)


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings({"quotas_redis_url": "redis://:sesame@localhost/0"})
    assert "redis_password" in str(raised.value)
    assert "sesame" not in str(raised.value)


def test_all_of_it(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(
        '[quotas]\nredis_url = "rediss://redis.example:6380/3"\nredis_ca_file = "ca.pem"\n'
        'when_redis_is_away = "refuse"\n'
    )
    quotas = load_settings({"quotas_usage_top_k": "5"}, file).quotas
    assert quotas.redis_ca_file == tmp_path / "ca.pem"
    assert quotas.usage_top_k == 5
    assert quotas.when_redis_is_away == "refuse"
