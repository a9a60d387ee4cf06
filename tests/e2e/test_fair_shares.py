"""A tenant that sends much does not hold up one that sends little."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from grpc_calls import MODEL_INFER, infer_request, pb
from puppets import Gate, told
from served import Served
from served_models import PUPPET, write_model

pytestmark = pytest.mark.e2e

BATCHES = "max_batch_size: 4\ndynamic_batching { }\n"


@pytest.fixture
def shared(front: str, serve: Callable[..., Served], tmp_path: Path) -> Served:
    """A server whose tenants are named by a header; `heavy` counts three times as much as others."""
    write_model(tmp_path / "models" / "puppet", "puppet", BATCHES + PUPPET)
    flags = ("--tenant-header", "x-tenant", "--tenant-weights", "heavy=3")
    return serve(tmp_path / "models", front, *flags).wait_ready()


class Tenant:
    """Sends for one tenant."""

    def __init__(self, channel: grpc.Channel, name: str) -> None:
        self._call = channel.unary_unary(
            MODEL_INFER,
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )
        self._name = name

    def send(self, count: int) -> list[tuple[str, Any]]:
        """So many requests: whose each is, and its future."""
        return [(self._name, self._send()) for _ in range(count)]

    def _send(self) -> Any:
        metadata = (("x-tenant", self._name),)
        return self._call.future(infer_request("puppet"), timeout=60, metadata=metadata)


def order_of(sent: list[tuple[str, Any]]) -> list[str]:
    """Whose requests the model ran, in the order of their runs."""
    runs = [(told(future.result(60))["run"], name) for name, future in sent]
    return [name for _, name in sorted(runs)]


def test_shares_follow_the_weights(shared: Served, tmp_path: Path) -> None:
    with (
        grpc.insecure_channel(shared.grpc) as channel,
        Gate(tmp_path, shared, channel, "puppet") as held,
    ):
        sent = Tenant(channel, "greedy").send(40)
        held.wait_arrived(41)
        sent += Tenant(channel, "polite").send(2)
        sent += Tenant(channel, "heavy").send(36)
        held.wait_arrived(79)
        tenants = shared.get("/v2/models/puppet/explain").json["queue"]["levels"][0]["tenants"]
        held.open()
        order = order_of(sent)
    waiting = {lane["tenant"]: (lane["weight"], lane["requests"]) for lane in tenants}
    assert waiting["polite"] == (1, 2) and waiting["heavy"] == (3, 36), json.dumps(tenants)
    # at most one batch was given ahead before the others came
    assert order[: 4 + 12].count("polite") == 2
    shared_out = order[12:44]
    assert 2 <= shared_out.count("heavy") / shared_out.count("greedy") <= 4


def test_without_others_a_tenant_has_all(shared: Served, tmp_path: Path) -> None:
    with (
        grpc.insecure_channel(shared.grpc) as channel,
        Gate(tmp_path, shared, channel, "puppet") as held,
    ):
        sent = Tenant(channel, "alone").send(12)
        held.wait_arrived(13)
        held.open()
        assert order_of(sent) == ["alone"] * 12
    batches = shared.statistics("puppet")["batch_stats"]
    assert {b["batch_size"]: b["compute_infer"]["count"] for b in batches}[4] == 3
