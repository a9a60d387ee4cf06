"""Penstock's own keys among a configuration's `parameters`, where Triton's format leaves room for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from penstock.errors import ConfigError
from penstock.model_config import ConfigDict


@dataclass(frozen=True, slots=True)
class OwnParameters:
    """What they say; 0 where they say nothing."""

    slo_p99_us: float
    """`slo_p99_ms`: the objective for the p99 of all answers; nobody waits longer."""
    execution_timeout_us: float
    """`execution_timeout_ms`: a worker that is busy with one batch for longer hangs."""


def own_parameters(config: ConfigDict) -> OwnParameters:
    """Read them. Raises ConfigError, naming key and value."""
    texts = {
        key: str(parameter.get("string_value", ""))
        for key, parameter in config.get("parameters", {}).items()
    }
    return OwnParameters(
        1000 * _milliseconds(texts, "slo_p99_ms"),
        1000 * _milliseconds(texts, "execution_timeout_ms"),
    )


def _milliseconds(texts: Mapping[str, str], key: str) -> float:
    text = texts.get(key)
    if text is None:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise ConfigError(
            f'parameters["{key}"].string_value is {text[:40]!r}; expected a number of milliseconds above 0'
        )
    return value
