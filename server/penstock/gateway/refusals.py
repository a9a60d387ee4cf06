"""What a refusal says beside its text: when to come back, for clients that obey it without reading."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Final

from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from penstock.errors import (
    BodyTooSlow,
    PenstockError,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)
from penstock.gateway.http_types import HttpResponse, error_response
from penstock.gateway.status import GrpcCode, status_of, text_of

MAX_RETRY_MS: Final = 2**31 - 1
"""What a gRPC client can read."""

DETAILS: Final = "grpc-status-details-bin"
"""Trailer: a serialized google.rpc.Status, the status with details."""

PUSHBACK: Final = "grpc-retry-pushback-ms"
"""Trailer: what gRPC's own retries wait for."""


def retry_after_ms(error: BaseException) -> int | None:
    """Milliseconds, rounded up, after which trying again should work; None: nobody knows."""
    if not isinstance(error, Unavailable) or error.retry_after_s is None:
        return None
    # `max` last: of a NaN it makes 0
    return ceil(max(0.0, min(error.retry_after_s * 1e3, MAX_RETRY_MS)))


def http_refusal(error: PenstockError) -> HttpResponse:
    """The response that an error becomes."""
    return error_response(text_of(error), status_of(error).http, _http_headers(error))


def _http_headers(error: PenstockError) -> tuple[tuple[str, str], ...]:
    if isinstance(error, Unauthenticated):
        return (("www-authenticate", 'Bearer realm="penstock"'),)
    if isinstance(error, BodyTooSlow):
        # the rest of the body could come as slowly
        return (("connection", "close"),)
    limits = error.limits if isinstance(error, QuotaExceeded) else ()
    after_ms = retry_after_ms(error)
    if after_ms is None:
        return limits
    seconds = max(1, ceil(after_ms / 1000))
    return ("retry-after", str(seconds)), ("retry-after-ms", str(after_ms)), *limits


@lru_cache(maxsize=256)
def status_details(code: GrpcCode, text: str, after_ms: int) -> bytes:
    """A google.rpc.Status with a RetryInfo, serialized. Remembered, for a server that refuses has little time."""
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(after_ms)
    status = Status(code=int(code), message=text)
    status.details.add().Pack(retry)
    data: bytes = status.SerializeToString()
    return data
