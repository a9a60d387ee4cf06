"""`--rate-limit-resource` in Triton's spelling."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from penstock.rate_limit_config import EVERY_DEVICE, Resource, parse_rate_limit_resources

pytestmark = pytest.mark.extension("rate_limiter")


def test_counts_for_one_device_and_for_each() -> None:
    assert parse_rate_limit_resources(["R1:10", "R2:5:0", "R2:8:1", "R2:1"]) == {
        Resource("R1", EVERY_DEVICE): 10,
        Resource("R2", 0): 5,
        Resource("R2", 1): 8,
        Resource("R2", EVERY_DEVICE): 1,
    }


@pytest.mark.parametrize("text", ["R1", "R1:", ":4", "R1:-1", "R1:1.5", "R1:1:", "R1:1:0:0", ""])
def test_what_is_no_count(text: str) -> None:
    expected = f"^expected NAME:COUNT or NAME:COUNT:DEVICE, such as R1:4, and not '{text}'$"
    with pytest.raises(ValueError, match=expected):
        parse_rate_limit_resources([text])


def test_more_than_any_model_can_ask_for() -> None:
    with pytest.raises(ValueError, match="expected a count of at most 4294967295"):
        parse_rate_limit_resources(["R:4294967296"])


def test_twice_the_same() -> None:
    with pytest.raises(ValueError, match="the count of 'R' is given twice for the same device"):
        parse_rate_limit_resources(["R:1", "R:2"])


def test_off_by_default() -> None:
    settings = load_settings({})
    assert (settings.rate_limit, dict(settings.rate_limits)) == ("off", {})


def test_as_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RATE_LIMIT_RESOURCE", "R1:4,R2:1:0")
    settings = load_settings({"rate_limit": "execution_count"})
    assert len(settings.rate_limits) == 2


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"rate_limit_resource": ["R1:4"]}, "rate_limit_resource needs rate_limit execution_count"),
        (
            {"rate_limit": "execution_count", "rate_limit_resource": ["R1"]},
            "--rate-limit-resource: expected NAME:COUNT or NAME:COUNT:DEVICE",
        ),
        ({"rate_limit": "on"}, "--rate-limit: expected 'off' or 'execution_count'"),
    ],
)
def test_what_is_refused(flags: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags)
    assert str(caught.value).startswith(text)
