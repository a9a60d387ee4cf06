"""Refusals say when to come back, in all the forms that clients obey."""

from __future__ import annotations

import json
from math import inf, nan

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from penstock.errors import (
    DeadlineExceeded,
    NotFound,
    PenstockError,
    QueueFull,
    QuotaExceeded,
    Unavailable,
)
from penstock.gateway.refusals import MAX_RETRY_MS, http_refusal, retry_after_ms, status_details
from penstock.gateway.status import GrpcCode


@pytest.mark.parametrize(
    ("seconds", "milliseconds", "whole_seconds"),
    [
        (0.0, 0, 1),
        (0.0001, 1, 1),
        (0.25, 250, 1),
        (1.0, 1000, 1),
        (1.0001, 1001, 2),
        (2, 2000, 2),
        (59.5, 59_500, 60),
        (-1.0, 0, 1),
        (nan, 0, 1),
        (inf, MAX_RETRY_MS, 2_147_484),
    ],
)
def test_http_headers(seconds: float, milliseconds: int, whole_seconds: int) -> None:
    error = QueueFull("Exceeds maximum queue size", retry_after_s=seconds)
    assert retry_after_ms(error) == milliseconds
    response = http_refusal(error)
    assert dict(response.headers) == {
        "retry-after": str(whole_seconds),
        "retry-after-ms": str(milliseconds),
    }
    assert (response.status, json.loads(response.body)) == (
        503,
        {"error": "Exceeds maximum queue size"},
    )


@pytest.mark.parametrize("kind", [Unavailable, QueueFull, DeadlineExceeded])
def test_all_that_may_work_later_can_say_when(kind: type[Unavailable]) -> None:
    assert retry_after_ms(kind("x", retry_after_s=0.5)) == 500


@pytest.mark.parametrize("error", [Unavailable("x"), NotFound("x"), PenstockError("x")])
def test_what_nobody_knows_is_not_told(error: PenstockError) -> None:
    assert retry_after_ms(error) is None
    assert http_refusal(error).headers == ()


@pytest.mark.parametrize(
    ("after_ms", "seconds", "nanos"),
    [(0, 0, 0), (1500, 1, 500_000_000), (MAX_RETRY_MS, 2_147_483, 647_000_000)],
)
def test_details(after_ms: int, seconds: int, nanos: int) -> None:
    status = Status.FromString(status_details(GrpcCode.UNAVAILABLE, "voll für jetzt", after_ms))
    assert (status.code, status.message) == (14, "voll für jetzt")
    (detail,) = status.details
    assert detail.type_url == "type.googleapis.com/google.rpc.RetryInfo"
    retry = RetryInfo.FromString(detail.value)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (seconds, nanos)


def test_a_text_that_is_not_unicode_is_shown_for_all_that() -> None:
    """It may quote a name that a client has sent."""
    response = http_refusal(NotFound("no model '\ud800'"))
    assert (response.status, json.loads(response.body)) == (404, {"error": "no model '\\ud800'"})


def test_a_quota_tells_its_limits_too() -> None:
    limits = (("ratelimit-limit", "5"), ("ratelimit-remaining", "0"))
    response = http_refusal(QuotaExceeded("too much", 1.5, limits))
    assert response.status == 429
    assert response.headers == (("retry-after", "2"), ("retry-after-ms", "1500"), *limits)
    # what can never pass has no time
    assert http_refusal(QuotaExceeded("too large", None, limits)).headers == limits
