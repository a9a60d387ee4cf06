"""Penstock's own keys among `parameters`."""

from __future__ import annotations

import re

import pytest

from penstock.errors import ConfigError
from penstock.repository.own_parameters import OwnParameters, own_parameters


def parameters(**texts: str) -> dict[str, object]:
    """A configuration that has nothing else."""
    return {"parameters": {key: {"string_value": text} for key, text in texts.items()}}


def test_what_is_not_there_is_nothing() -> None:
    assert own_parameters({}) == OwnParameters(0, 0)
    assert own_parameters(parameters(scale="3")) == OwnParameters(0, 0)


def test_milliseconds() -> None:
    config = parameters(slo_p99_ms="2.5", execution_timeout_ms="300")
    assert own_parameters(config) == OwnParameters(2500, 300_000)


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "nan", "inf", "1e400"])
def test_what_is_no_time(text: str) -> None:
    expected = (
        f'parameters["slo_p99_ms"].string_value is {text!r}; expected a number of milliseconds'
    )
    with pytest.raises(ConfigError, match=re.escape(expected)):
        own_parameters(parameters(slo_p99_ms=text))
