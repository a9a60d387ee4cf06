"""A tenant that sends much does not hold up one that sends little."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from grpc_calls import MODEL_INFER, infer_request, pb
from puppets import Gate
from served import Served
from served_models import PUPPET, write_model
from supervised import eventually

pytestmark = pytest.mark.e2e

BATCHES = "max_batch_size: 4\ndynamic_batching { }\n"


@pytest.fixture
def shared(front: str, serve: Callable[..., Served], tmp_path: Path) -> Served:
    """A server whose tenants are named by a header; `heavy` counts three times as much as others."""
    write_model(tmp_path / "models" / "puppet", "puppet", BATCHES + PUPPET)
    flags = ("--tenant-header", "x-tenant", "--tenant-weights", "heavy=3")
    return serve(tmp_path / "models", front, *flags).wait_ready()


class Tenant:
    """Sends for one tenant, and keeps the order of all answers."""

    def __init__(self, channel: grpc.Channel, name: str, order: list[str]) -> None:
        self._call = channel.unary_unary(MODEL_INFER, pb.ModelInferRequest.SerializeToString)
        self._name, self._order = name, order

    def send(self, count: int) -> list[Any]:
        """So many requests."""
        return [self._send() for _ in range(count)]

    def _send(self) -> Any:
        future = self._call.future(
            infer_request("puppet"), timeout=30, metadata=(("x-tenant", self._name),)
        )
        future.add_done_callback(lambda _: self._order.append(self._name))
        return future


def test_shares_follow_the_weights(shared: Served, tmp_path: Path) -> None:
    order: list[str] = []
    with (
        grpc.insecure_channel(shared.grpc) as channel,
        Gate(tmp_path, shared, channel, "puppet") as held,
    ):
        sent = Tenant(channel, "greedy", order).send(40)
        held.wait_arrived(41)
        sent += Tenant(channel, "polite", order).send(2)
        sent += Tenant(channel, "heavy", order).send(36)
        held.wait_arrived(79)
        told = shared.get("/v2/models/puppet/explain").json["queue"]["levels"][0]["tenants"]
        held.open()
        for future in sent:
            future.result(30)
        eventually(lambda: len(order) == 78, "an answer is missing")
    waiting = {lane["tenant"]: (lane["weight"], lane["requests"]) for lane in told}
    assert waiting["polite"] == (1, 2) and waiting["heavy"] == (3, 36), json.dumps(told)
    # at most one batch was given ahead before the others came
    assert order[: 4 + 12].count("polite") == 2
    shared_out = order[12:44]
    assert 2 <= shared_out.count("heavy") / shared_out.count("greedy") <= 4


def test_without_others_a_tenant_has_all(shared: Served, tmp_path: Path) -> None:
    order: list[str] = []
    with (
        grpc.insecure_channel(shared.grpc) as channel,
        Gate(tmp_path, shared, channel, "puppet") as held,
    ):
        sent = Tenant(channel, "alone", order).send(12)
        held.wait_arrived(13)
        held.open()
        for future in sent:
            future.result(30)
    batches = shared.statistics("puppet")["batch_stats"]
    assert {b["batch_size"]: b["compute_infer"]["count"] for b in batches}[4] == 3
