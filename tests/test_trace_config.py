"""`--trace-config` in Triton's spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from penstock.trace_config import TraceConfig, parse_trace_config, with_absolute_file


def test_tracing_is_off_by_default() -> None:
    config = parse_trace_config([])
    assert config == TraceConfig()
    assert (config.level, config.rate, config.count, config.log_frequency) == ((), 1000, -1, 0)


def test_one_setting_a_flag_as_triton_has_it() -> None:
    config = parse_trace_config(
        [
            "triton,file=/tmp/t.json",
            "triton,log-frequency=50",
            "rate=100",
            "level=TENSORS",
            "level=TIMESTAMPS",
            "count=7",
        ]
    )
    assert config == TraceConfig(
        file="/tmp/t.json",
        log_frequency=50,
        rate=100,
        level=("TIMESTAMPS", "TENSORS"),
        count=7,
    )


def test_many_settings_a_flag() -> None:
    config = parse_trace_config(
        ["triton,file=/tmp/a,b.json,log-frequency=2", "rate=5,level=TENSORS"]
    )
    assert (config.file, config.log_frequency) == ("/tmp/a,b.json", 2)
    assert (config.rate, config.level) == (5, ("TENSORS",))


def test_opentelemetry() -> None:
    config = parse_trace_config(
        [
            "mode=opentelemetry",
            "level=TIMESTAMPS",
            "opentelemetry,url=http://127.0.0.1:4318/v1/traces",
            "opentelemetry,resource=service.name=shop",
            "opentelemetry,resource=team=a=b",
            "opentelemetry,bsp_schedule_delay=100",
        ]
    )
    assert (config.mode, config.url) == ("opentelemetry", "http://127.0.0.1:4318/v1/traces")
    assert config.resource == (("service.name", "shop"), ("team", "a=b"))
    assert config.bsp_schedule_delay == 100


def test_off_takes_levels_back() -> None:
    assert parse_trace_config(["triton,file=/f", "level=TENSORS", "level=OFF"]).level == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rate=0", "Unable to parse 'rate', value is out of range [ 1, 4294967295 ], got: 0"),
        ("rate=x", "Unable to parse 'rate', got: x"),
        ("count=-2", "Unable to parse 'count', value is out of range"),
        ("level=LOUD", "invalid value for trace level option: LOUD, expected OFF, TIMESTAMPS"),
        ("mode=jaeger", "invalid value for trace mode option: jaeger"),
        ("jaeger,url=http://x", "invalid value for trace mode option: jaeger"),
        ("triton,fil=x", "there is no fil, expected one of file, log-frequency"),
        ("url=http://x", "there is no url, expected one of mode, level, rate, count"),
        ("triton", "expected [MODE,]NAME=VALUE"),
        ("opentelemetry,url=collector", "expected a URL"),
        ("opentelemetry,resource=x", "expected resource=NAME=VALUE"),
        ("level=TENSORS", "level=TENSORS needs triton,file=FILE"),
    ],
)
def test_what_is_wrong_is_named(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings({"trace_config": [text]})
    assert str(refused.value).startswith("--trace-config: ")
    assert expected.lower() in str(refused.value).lower()


def test_the_file_is_found_from_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_absolute_file("triton,file=t.json") == f"triton,file={tmp_path}/t.json"
    settings = load_settings({"trace_config": ["triton,log-frequency=2,file=t,file=u"]})
    assert settings.tracing.file == str(tmp_path / "u")


def test_flags_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TRACE_CONFIG", "rate=5;triton,file=/t")
    assert load_settings({}).tracing == TraceConfig(rate=5, file="/t")
