"""Errors as clients raise them → what became of the request."""

from __future__ import annotations

import re
from typing import Any, Final

import grpc
from tritonclient.utils import InferenceServerException

from penstock_loadtest.chaos.books import Kind, Outcome

TEXTS: Final = (
    (Kind.QUEUE_FULL, re.compile(r"Exceeds maximum queue size")),
    (Kind.LATE, re.compile(r"Request timeout expired|[Dd]eadline [Ee]xceeded")),
    (Kind.CRASHED, re.compile(r"worker process ended while it ran|kill(s|ed) (its|the|a) worker")),
)
"""The server's documented texts. They rule whatever the code is."""

LINK_TEXTS: Final = re.compile(
    "Socket closed|GOAWAY|Connection re(set|fused)|Broken pipe|failed to connect|recvmsg|"
    "connections to all backends failing|Stream removed|transport|[Ee]ndpoint|"
    "Connection aborted|RST_STREAM with error code [278]"
)
"""What gRPC's core says of a call whose connection ended."""


class HttpError(Exception):
    """An HTTP response that is none of success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


class BadResponse(Exception):
    """A response that no protocol allows."""


class SecondAnswer(Exception):
    """Bytes came after the response, though nothing was asked."""


def explain(error: BaseException) -> Outcome:
    """What the error means. What is not foreseen is UNEXPLAINED, with its text."""
    if isinstance(error, InferenceServerException):
        return _by_code(str(error.status() or "").removeprefix("StatusCode."), str(error.message()))
    if isinstance(error, grpc.RpcError):
        call: Any = error
        return _by_code(call.code().name, str(call.details()))
    if isinstance(error, HttpError):
        return _by_code(str(error.status), error.text)
    if isinstance(error, BadResponse):
        return Outcome(Kind.UNEXPLAINED, str(error))
    if isinstance(error, SecondAnswer):
        return Outcome(Kind.DOUBLE, str(error))
    if isinstance(error, TimeoutError):
        return Outcome(Kind.MISSING, f"the client's patience is over: {error!r}")
    if isinstance(error, OSError) or _is_geventhttpclients(error):
        return Outcome(Kind.LINK_LOST, repr(error))
    return Outcome(Kind.UNEXPLAINED, repr(error))


def _by_code(code: str, text: str) -> Outcome:
    said = f"{code}: {text}"
    for kind, pattern in TEXTS:
        if pattern.search(text):
            return Outcome(kind, said)
    if code in ("DEADLINE_EXCEEDED", "504"):
        return Outcome(Kind.LATE, said)
    if code == "CANCELLED":
        return Outcome(Kind.CANCELLED, said)
    if code in ("UNAVAILABLE", "INTERNAL", "UNKNOWN") and LINK_TEXTS.search(text):
        return Outcome(Kind.LINK_LOST, said)
    return Outcome(Kind.UNEXPLAINED, said)


def _is_geventhttpclients(error: BaseException) -> bool:
    """Its errors of connections have no base of their own but RuntimeError or Exception."""
    return type(error).__module__.startswith("geventhttpclient")
