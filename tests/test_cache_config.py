"""`--cache-config` in Triton's spelling."""

from __future__ import annotations

import pytest

from penstock.cache_config import CacheConfig
from penstock.config_sources import load_settings
from penstock.errors import ConfigError

pytestmark = pytest.mark.extension("response_cache")


@pytest.mark.parametrize(
    ("flags", "size_bytes"),
    [
        ({}, 0),
        ({"cache_config": ["local,size=1048576"]}, 1 << 20),
        ({"cache_config": ["local,size=64MiB"]}, 64 << 20),
        ({"cache_config": ["local,size=1", "local,size=2"]}, 2),
        ({"response_cache_byte_size": "4096"}, 4096),
        ({"response_cache_byte_size": "0"}, 0),
    ],
)
def test_how_much_is_cached(flags: dict[str, object], size_bytes: int) -> None:
    assert load_settings(flags).cache == CacheConfig(size_bytes)


def test_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE_CONFIG", "local,size=5;local,size=7")
    assert load_settings({}).cache.size_bytes == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local", "expected CACHE,NAME=VALUE, such as local,size=256MiB"),
        ("size=5", "expected CACHE,NAME=VALUE"),
        ("local,size", "expected CACHE,NAME=VALUE"),
        ("local,size=", "expected CACHE,NAME=VALUE"),
        ("redis,host=here", "there is no cache 'redis', expected local"),
        ("local,bytes=5", "the cache local has no bytes, expected size"),
        ("local,size=0", "expected a size above 0, in bytes or as 256MiB"),
        ("local,size=-5", "expected a size above 0"),
        ("local,size=much", "expected a size above 0"),
    ],
)
def test_what_is_wrong_is_named(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings({"cache_config": [text]})
    assert str(refused.value).startswith(f"--cache-config: {text}: ")
    assert expected in str(refused.value)


def test_only_one_of_both_ways() -> None:
    with pytest.raises(ConfigError, match="expected only one of them"):
        load_settings({"cache_config": ["local,size=5"], "response_cache_byte_size": "5"})
    with pytest.raises(ConfigError, match="--response-cache-byte-size"):
        load_settings({"response_cache_byte_size": "-1"})
