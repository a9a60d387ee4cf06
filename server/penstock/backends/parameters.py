"""Reads a configuration's `parameters`, which are all strings, as what they mean."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict


def string_parameters(config: ConfigDict) -> dict[str, str]:
    """Key → string value."""
    given = config.get("parameters") or {}
    return {key: value.get("string_value", "") for key, value in given.items()}


def thread_count(parameters: Mapping[str, str], key: str, default: int) -> int:
    """A count of threads, 0 for one a core. Raises LoadFailed that names the key."""
    text = parameters.get(key)
    if text is None:
        return default
    if not text.strip().isdecimal():
        raise LoadFailed(f"parameter {key!r} is {text!r}, expected a count of threads, 0 for all")
    return int(text)


def flag(parameters: Mapping[str, str], key: str, default: bool) -> bool:
    """0 or 1. Raises LoadFailed that names the key."""
    text = parameters.get(key)
    if text is None:
        return default
    if text.strip() not in ("0", "1"):
        raise LoadFailed(f"parameter {key!r} is {text!r}, expected 0 or 1")
    return text.strip() == "1"
