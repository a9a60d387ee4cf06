"""The statistics extension: Triton's meaning, in JSON and in protobuf."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from penstock.telemetry.responses import MAX_INDEX
from penstock.telemetry.statistics import FailureReason, ModelStatistics

# Its names are made at run time: type checkers see none of them.
service_pb2 = import_module("tritonclient.grpc.service_pb2")


@pytest.fixture
def statistics() -> ModelStatistics:
    return ModelStatistics("digits", "2", {})


def record_two_requests(statistics: ModelStatistics) -> None:
    """One batch of five rows from two requests."""
    statistics.record_batch(
        now_ms=1_795_482_139_449,
        rows=5,
        queue_ns=[100, 200],
        request_ns=[1_000, 2_000],
        input_ns=10,
        infer_ns=20,
        output_ns=30,
    )


def test_a_batch_counts_each_request_and_each_row(statistics: ModelStatistics) -> None:
    record_two_requests(statistics)

    row = statistics.to_json()
    assert (row["name"], row["version"]) == ("digits", "2")
    assert row["last_inference"] == 1_795_482_139_449
    assert (row["inference_count"], row["execution_count"]) == (5, 1)
    assert row["inference_stats"] == {
        "success": {"count": 2, "ns": 3_000},
        "fail": {"count": 0, "ns": 0},
        "queue": {"count": 2, "ns": 300},
        "compute_input": {"count": 2, "ns": 20},
        "compute_infer": {"count": 2, "ns": 40},
        "compute_output": {"count": 2, "ns": 60},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }
    assert row["response_stats"] == {}
    assert row["memory_usage"] == []


def test_batch_stats_count_batches_by_their_size(statistics: ModelStatistics) -> None:
    statistics.record_batch(1, 8, [1], [1], 5, 6, 7)
    record_two_requests(statistics)
    record_two_requests(statistics)

    assert statistics.to_json()["batch_stats"] == [
        {
            "batch_size": 5,
            "compute_input": {"count": 2, "ns": 20},
            "compute_infer": {"count": 2, "ns": 40},
            "compute_output": {"count": 2, "ns": 60},
        },
        {
            "batch_size": 8,
            "compute_input": {"count": 1, "ns": 5},
            "compute_infer": {"count": 1, "ns": 6},
            "compute_output": {"count": 1, "ns": 7},
        },
    ]


def test_failures_are_no_inferences(statistics: ModelStatistics) -> None:
    statistics.record_failure(FailureReason.REJECTED, 50)
    for _ in range(3):
        statistics.record_failure(FailureReason.BACKEND, 100)

    row = statistics.to_json()
    assert row["inference_stats"]["fail"] == {"count": 4, "ns": 350}
    assert row["inference_stats"]["success"] == {"count": 0, "ns": 0}
    assert (row["inference_count"], row["execution_count"]) == (0, 0)
    assert statistics.failures[FailureReason.BACKEND] == 3


def test_a_batch_whose_requests_all_failed_is_still_an_execution(
    statistics: ModelStatistics,
) -> None:
    statistics.record_batch(1, 4, [], [], 5, 6, 7)

    row = statistics.to_json()
    assert row["execution_count"] == 1
    assert row["inference_stats"]["compute_infer"] == {"count": 0, "ns": 0}
    assert row["batch_stats"][0]["compute_infer"] == {"count": 1, "ns": 6}


def test_the_message_says_what_the_json_says(statistics: ModelStatistics) -> None:
    record_two_requests(statistics)
    statistics.record_failure(FailureReason.OTHER, 7)
    message = service_pb2.ModelStatistics()
    statistics.fill_proto(message)

    shown: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert _numbers(shown) == statistics.to_json()


def test_empty_durations_are_present_in_the_message(statistics: ModelStatistics) -> None:
    message = service_pb2.ModelStatistics()
    statistics.fill_proto(message)

    for name in statistics.to_json()["inference_stats"]:
        assert message.inference_stats.HasField(name)


def _numbers(value: Any) -> Any:
    """64-bit integers are strings in protobuf's JSON."""
    if isinstance(value, dict):
        return {
            key: item if key in ("name", "version") else _numbers(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return int(value)


def test_responses_of_decoupled_models_are_counted_by_their_place(
    statistics: ModelStatistics,
) -> None:
    statistics.responses.success(0, 100, 10)
    statistics.responses.success(0, 200, 20)
    statistics.responses.success(1, 50, 5)
    statistics.responses.fail(1, 7, 1)
    statistics.responses.empty(2, 30)
    statistics.responses.cancel(2, 40)
    stats = statistics.to_json()["response_stats"]
    nothing = {"count": 0, "ns": 0}
    assert stats["0"] == {
        "compute_infer": {"count": 2, "ns": 300},
        "compute_output": {"count": 2, "ns": 30},
        "success": {"count": 2, "ns": 330},
        "fail": nothing,
        "empty_response": nothing,
        "cancel": nothing,
    }
    assert stats["1"]["success"] == {"count": 1, "ns": 55}
    assert stats["1"]["fail"] == {"count": 1, "ns": 8}
    assert stats["2"]["success"] == nothing
    assert stats["2"]["empty_response"] == {"count": 1, "ns": 30}
    assert stats["2"]["cancel"] == {"count": 1, "ns": 40}


def test_endless_streams_do_not_fill_the_statistics(statistics: ModelStatistics) -> None:
    for index in range(2000):
        statistics.responses.success(index, 1, 1)
    assert len(statistics.to_json()["response_stats"]) == MAX_INDEX + 1


def test_responses_cross_to_protobuf(statistics: ModelStatistics) -> None:
    statistics.responses.cancel(3, 9)
    message = service_pb2.ModelStatistics()
    statistics.fill_proto(message)
    assert message.response_stats["3"].cancel.ns == 9


def test_the_workers_memory_is_the_models(statistics: ModelStatistics) -> None:
    assert statistics.to_json()["memory_usage"] == []
    statistics.worker_pids = lambda: [os.getpid(), os.getpid(), 2**30]
    (row,) = statistics.to_json()["memory_usage"]
    assert (row["type"], row["id"]) == ("CPU", 0)
    assert 2 * 10_000_000 < row["byte_size"] < 2 * 10**11
