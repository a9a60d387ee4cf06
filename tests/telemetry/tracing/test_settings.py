"""What is traced: the server's setting, models' own, and who is sampled."""

from __future__ import annotations

import re

import pytest

from penstock.errors import InvalidRequest, Unsupported
from penstock.telemetry.tracing.sampler import Sampler
from penstock.telemetry.tracing.settings import Changes, TraceSetting, TraceSettings
from penstock.telemetry.tracing.tracing import Tracing
from penstock.trace_config import TraceConfig
from penstock.types import TracedCall

ON: Changes = {"trace_level": ["TIMESTAMPS"], "trace_rate": ["1"]}
FILE = TraceConfig(file="/nowhere/trace.json")


def test_a_models_values_hide_the_servers() -> None:
    settings = TraceSettings(FILE)
    settings.update("m", {"trace_rate": ["3"]})
    settings.update("", {"trace_rate": ["5"], "trace_count": ["8"]})
    assert (settings.of("m").rate, settings.of("m").count) == (3, 8)
    assert (settings.of("other").rate, settings.of("").rate) == (5, 5)


def test_none_goes_back_to_the_server_and_the_server_to_its_start() -> None:
    settings = TraceSettings(FILE)
    settings.update("m", {"trace_rate": ["3"]})
    settings.update("", {"trace_rate": ["5"]})
    settings.update("m", {"trace_rate": None})
    assert settings.of("m").rate == 5
    assert settings.models == []
    settings.update("", {"trace_rate": None})
    assert settings.of("m").rate == 1000


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"trace_rate": ["x"]}, "Unable to parse 'trace_rate', got: x"),
        ({"trace_rate": ["5x"]}, "Unable to parse 'trace_rate', got: 5x"),
        (
            {"trace_rate": ["99999999999"]},
            "Unable to parse 'trace_rate', value is out of range [ 0, 4294967295 ],"
            " got: 99999999999",
        ),
        ({"trace_rate": ["-1"]}, "value is out of range [ 0, 4294967295 ], got: -1"),
        ({"trace_rate": ["1", "2"]}, "expect only 1 value for 'trace_rate'"),
        ({"trace_count": ["-2"]}, "Unable to parse 'trace_count'. Expecting value >= -1, got: -2"),
        ({"trace_count": ["9999999999"]}, "value is out of range"),
        ({"log_frequency": ["x"]}, "Unable to parse 'log_frequency', got: x"),
        ({"trace_level": ["OFF", "TENSORS"]}, "Expect only one trace level 'OFF' is specified"),
        ({"trace_level": ["LOUD"]}, "invalid value for trace level option: LOUD"),
        ({"trace_mode": ["triton"]}, "unknown trace setting 'trace_mode'"),
        (
            {"trace_level": ["TENSORS"], "trace_rate": ["0"]},
            "Attempting to set invalid trace setting :sample rate must be non-zero",
        ),
    ],
)
def test_bad_values_change_nothing(changes: Changes, text: str) -> None:
    settings = TraceSettings(FILE)
    with pytest.raises(InvalidRequest, match=re.escape(text)):
        settings.update("m", {"trace_count": ["7"], **changes})
    assert settings.of("m") == settings.of("")


def test_the_file_is_fixed_and_needed() -> None:
    with pytest.raises(Unsupported, match="trace file location can not be updated"):
        TraceSettings(FILE).update("", {"trace_file": ["x"]})
    with pytest.raises(InvalidRequest, match="trace file name is not given"):
        TraceSettings(TraceConfig()).update("", {"trace_level": ["TIMESTAMPS"]})


def test_a_bad_rate_of_the_server_is_refused_for_a_model_that_is_traced() -> None:
    settings = TraceSettings(FILE)
    settings.update("m", {"trace_level": ["TENSORS"]})
    with pytest.raises(InvalidRequest, match="sample rate must be non-zero"):
        settings.update("", {"trace_rate": ["0"]})


def sampled(sampler: Sampler, requests: int) -> list[int]:
    return [number for number in range(1, requests + 1) if sampler.take(forced=False)]


def test_every_nth_request_is_traced() -> None:
    assert sampled(Sampler(TraceSetting(("TIMESTAMPS",), 3, -1, 0)), 10) == [3, 6, 9]


def test_so_many_traces_and_no_more() -> None:
    sampler = Sampler(TraceSetting(("TIMESTAMPS",), 2, 2, 0))
    assert sampled(sampler, 10) == [2, 4]
    assert not sampler.on


def test_off_is_off() -> None:
    sampler = Sampler(TraceSetting((), 1, -1, 0))
    assert sampled(sampler, 3) == []
    assert not sampler.take(forced=True)


def test_the_switch_is_on_only_while_something_can_be_traced() -> None:
    tracing = Tracing(FILE)
    assert not tracing.switch.on
    tracing.update("m", {**ON, "trace_count": ["1"]})
    assert tracing.switch.on
    assert tracing.sample("other", 1, "", None) is None
    assert tracing.sample("m", 1, "", None) is not None
    assert not tracing.switch.on
    assert tracing.to_texts("m")["trace_count"] == ["0"]
    tracing.update("m", {"trace_count": ["1"]})
    assert tracing.switch.on
    tracing.update("m", {"trace_level": None})
    assert not tracing.switch.on


def test_what_does_not_change_goes_on_counting() -> None:
    tracing = Tracing(FILE)
    tracing.update("m", {**ON, "trace_count": ["5"], "log_frequency": ["0"]})
    tracing.sample("m", 1, "", None)
    tracing.update("", {"trace_rate": ["9"]})
    assert tracing.to_texts("m")["trace_count"] == ["4"]


@pytest.mark.parametrize(
    ("traceparent", "traced"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", [True, True, True]),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", [False, False, False]),
        ("nonsense", [False, True, False]),
        ("", [False, True, False]),
    ],
)
def test_the_client_decides_on_its_own_traces(traceparent: str, traced: list[bool]) -> None:
    tracing = Tracing(TraceConfig(mode="opentelemetry", level=("TIMESTAMPS",), rate=2))
    call = TracedCall("HTTP", 1, traceparent)
    assert [tracing.sample("m", 1, "", call) is not None for _ in range(3)] == traced


def test_traces_have_numbers_of_their_own() -> None:
    tracing = Tracing(TraceConfig(file="/f", level=("TIMESTAMPS",), rate=1))
    first, second = (tracing.sample("m", 1, "", None) for _ in range(2))
    assert first is not None and second is not None
    assert (first.id, second.id) == (1, 2)
