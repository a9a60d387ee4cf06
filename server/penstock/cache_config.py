"""`--cache-config`: whether models' answers may be cached, and how much of them, in Triton's spelling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from pydantic import ByteSize, TypeAdapter, ValidationError


class CacheConfig(msgspec.Struct, frozen=True):
    """Of the whole server."""

    size_bytes: int = 0
    """Memory for answers, all told; 0: nothing is cached."""


_EXAMPLE: Final = "such as local,size=256MiB"
_size: Final = TypeAdapter(ByteSize).validate_python


def parse_cache_config(texts: Iterable[str]) -> CacheConfig:
    """All of the flag's values together; the last size counts. Raises ValueError that names what is wrong."""
    config = CacheConfig()
    for text in texts:
        cache, _, setting = text.partition(",")
        name, equals, value = setting.partition("=")
        if not (cache and name and equals and value):
            raise ValueError(f"{text}: expected CACHE,NAME=VALUE, {_EXAMPLE}")
        if cache != "local":
            raise ValueError(f"{text}: there is no cache '{cache}', expected local")
        if name != "size":
            raise ValueError(f"{text}: the cache local has no {name}, expected size")
        config = CacheConfig(_parsed(text, value))
    return config


def _parsed(text: str, value: str) -> int:
    try:
        size = int(_size(value))
    except ValidationError:
        size = 0
    if size <= 0:
        raise ValueError(f"{text}: expected a size above 0, in bytes or as 256MiB")
    return size
