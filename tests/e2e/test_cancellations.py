"""Calls that are cancelled or run out of time, and what others on their HTTP/2 connection notice of it: nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from grpc_calls import infer_request, pb
from penstock.gateway.envoy_config import MAX_RESETS_AT_ONCE
from raw_grpc import RawGrpc, prefixed
from served import Served
from supervised import eventually

pytestmark = pytest.mark.e2e

OK, DEADLINE_EXCEEDED = 0, 4
MANY = 3000
"""More than the 250 calls that Envoy would bear to be cancelled soon on one connection, and than nghttp2's 1000."""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[bytes]:
    """A request that makes the file `started`, and is answered when `open` exists, at the latest after the test."""
    parameters = {"started": str(tmp_path / "started"), "wait_for": str(tmp_path / "open")}
    yield prefixed(infer_request(parameters=parameters).SerializeToString())
    (tmp_path / "open").touch()


def test_many_cancelled_calls_do_not_end_their_connection(
    server: Served, tmp_path: Path, held: bytes
) -> None:
    """One other call is under way all the time, and others come and go."""
    assert MANY < MAX_RESETS_AT_ONCE
    quick = prefixed(infer_request("puppet_pair").SerializeToString())
    with RawGrpc(server.settings.grpc_port) as raw:
        slow = raw.start()
        raw.send(slow, held)
        eventually((tmp_path / "started").exists, "the model got no request")
        for _ in range(MANY // 50):
            for _ in range(50):
                cancelled = raw.start()
                raw.send(cancelled, quick)
                raw.reset(cancelled)
            assert raw.call(quick).status == OK
        (tmp_path / "open").touch()
        outcome = raw.outcome(slow)
    assert (outcome.status, outcome.reset) == (OK, False)
    assert pb.ModelInferResponse.FromString(outcome.data[5:]).model_name == "puppet"


def test_it_is_the_scheduler_that_keeps_a_deadline(server: Served, held: bytes) -> None:
    """Were it Envoy, which knows nothing of answers on their way, some would be cut off after half of them."""
    with RawGrpc(server.settings.grpc_port) as raw:
        outcome = raw.call(held, headers=[("grpc-timeout", "200m")])
    assert outcome.data == b""
    if server.front == "envoy":
        assert (outcome.status, outcome.reset) == (DEADLINE_EXCEEDED, False)
        assert outcome.message.startswith("Request timeout expired for model 'puppet'")
    else:
        # grpc.aio may reset the call by itself; its clients tell the same
        assert outcome.reset or outcome.status == DEADLINE_EXCEEDED
