"""`--metrics-config` in Triton's spelling."""

from __future__ import annotations

import pytest

from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from penstock.metrics_config import MetricsConfig, parse_metrics_config


def test_only_counters_by_default() -> None:
    config = parse_metrics_config([])
    assert config == MetricsConfig()
    assert (config.counter_latencies, config.histogram_latencies, config.summary_latencies) == (
        True,
        False,
        False,
    )
    assert config.summary_quantiles == (0.5, 0.9, 0.95, 0.99, 0.999)


def test_switches_and_quantiles() -> None:
    config = parse_metrics_config(
        [
            "counter_latencies=false",
            "histogram_latencies=true",
            "summary_latencies=1",
            "summary_quantiles=0.5:0.05,0.9:0.01",
        ]
    )
    assert config == MetricsConfig(False, True, True, (0.5, 0.9))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("summaries=true", "there is no summaries, expected one of counter_latencies"),
        ("summary_latencies=maybe", "expected true or false"),
        ("summary_latencies", "expected NAME=VALUE"),
        ("summary_quantiles=0.5", "0.5 is no QUANTILE:ERROR"),
        ("summary_quantiles=2:0.1", "2:0.1 is no QUANTILE:ERROR"),
        ("summary_quantiles=", "is no QUANTILE:ERROR"),
    ],
)
def test_what_is_wrong_is_named(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings({"metrics_config": [text]})
    assert str(refused.value).startswith("--metrics-config: ")
    assert expected in str(refused.value)


def test_flags_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "summary_latencies=true;summary_quantiles=0.5:0.05,0.9:0.01"
    monkeypatch.setenv("PENSTOCK_METRICS_CONFIG", text)
    assert load_settings({}).metrics == MetricsConfig(
        summary_latencies=True, summary_quantiles=(0.5, 0.9)
    )
