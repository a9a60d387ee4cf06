"""Limits on sizes hold before anything is read, and those that are set are those that hold."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest

from raw_grpc import RawGrpc, prefixed
from served import Served

pytestmark = pytest.mark.e2e

INVALID, EXHAUSTED = 3, 8


def test_too_large_is_refused_before_it_is_read(front: str, add_sub: Callable[..., Served]) -> None:
    served: Served = add_sub(front, "--grpc-max-message-bytes=1000000")
    with RawGrpc(served.settings.grpc_port) as connection:
        stream = connection.start()
        connection.send(stream, prefixed(b"", length=1_000_001), end=False)
        outcome = connection.outcome(stream)
        assert outcome.status == EXHAUSTED
        assert "1000001" in outcome.message or "larger than" in outcome.message
        assert "1000000" in outcome.message
        # the connection lives on
        assert connection.call(prefixed(b"\xff")).status == INVALID
        bomb = prefixed(gzip.compress(bytes(2_000_000)), flag=1)
        assert connection.call(bomb, headers=[("grpc-encoding", "gzip")]).status == EXHAUSTED


def test_http_limit(front: str, add_sub: Callable[..., Served]) -> None:
    served = add_sub(front, "--http-max-input-size=1000")
    fits, over = bytes(1000), bytes(1001)
    assert served.infer("add_sub", fits).status == 400
    answer = served.infer("add_sub", over)
    assert answer.status == 413
    assert answer.error == "the body has 1001 bytes or more, the limit is 1000"
    bomb = served.infer("add_sub", gzip.compress(over), content_encoding="gzip")
    assert bomb.status == 413
