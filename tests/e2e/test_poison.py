"""Requests that kill workers or hang them: found, answered, remembered; everybody else gets an answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from grpc_calls import infer, infer_request
from puppets import Gate, row, told
from served import Served, json_request
from served_models import PUPPET, write_model
from supervised import eventually

pytestmark = pytest.mark.e2e


@pytest.fixture
def killer(tmp_path: Path) -> dict[str, bool | str]:
    """Parameters of a request that kills, and that no other test sends."""
    return {"die": True, "of": str(tmp_path)}


def test_a_request_that_kills_is_found_among_its_mates_and_remembered(
    server: Served, channel: grpc.Channel, tmp_path: Path, killer: dict[str, bool | str]
) -> None:
    with Gate(tmp_path, server, channel, "puppet") as held:
        mates = [held.send(row(number)) for number in range(3)]
        bad = held.send(row(9), parameters=killer)
        mates += [held.send(row(number)) for number in range(3, 6)]
        held.wait_arrived(8)
        held.open()
        error = bad.exception(60)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "ended while it ran this request: killed by SIGKILL" in error.details()
        for number, mate in enumerate(mates):
            assert mate.result(60).raw_output_contents[0] == row(number).tobytes()
    eventually(lambda: len(server.workers("puppet")) == 1, "the worker is not back")
    workers = server.workers("puppet")
    with pytest.raises(grpc.RpcError) as again:
        infer(channel, infer_request(array=row(9), parameters=killer))
    assert "refused, for a request like this was run before" in str(again.value)
    # another id changes nothing; other inputs do
    with pytest.raises(grpc.RpcError, match="refused, for a request like this"):
        infer(channel, infer_request(array=row(9), parameters=killer, id="another"))
    assert told(infer(channel, infer_request(array=row(9))))["parameters"] == {}
    assert server.workers("puppet") == workers
    quarantine = server.get("/v2/models/puppet/explain").json["quarantine"]
    assert any("killed by SIGKILL" in entry["reason"] for entry in quarantine)


def test_a_request_that_hangs_its_worker_is_ended_and_its_mates_are_answered(
    server: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    """`puppet_hanging` may take 0.3 s a batch; the gate alone takes longer, and hangs too."""
    forever = str(tmp_path / "never")
    with Gate(tmp_path, server, channel, "puppet_hanging") as held:
        hangs = held.send(row(9), parameters={"wait_for": forever})
        mates = [held.send(row(number)) for number in range(3)]
        error = held.first.exception(60)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "busy with one batch for longer than 0.3 s" in error.details()
        assert "busy with one batch for longer than 0.3 s" in hangs.exception(60).details()
        for number, mate in enumerate(mates):
            assert mate.result(60).raw_output_contents[0] == row(number).tobytes()
    assert server.infer("puppet_hanging", json_request(1.0)).status == 200


def test_workers_that_crash_in_a_loop_make_the_model_not_ready_with_the_reason(
    front: str, serve: Callable[..., Served], tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "puppet"
    write_model(folder, "puppet", "max_batch_size: 4\n" + PUPPET)
    server = serve(tmp_path / "models", front).wait_ready()
    good = (folder / "1" / "model.py").read_text()
    (folder / "1" / "model.py").write_text("import os\nos.abort()\n")
    (worker,) = server.workers("puppet")
    os.kill(worker, signal.SIGKILL)

    def reason() -> str:
        return server.index()["puppet", "1"].get("reason", "")

    eventually(lambda: "killed by SIGABRT" in reason(), "the index does not say why")
    assert server.index()["puppet", "1"]["state"] == "UNAVAILABLE"
    assert server.get("/v2/models/puppet/ready").status == 400
    refused = server.infer("puppet", json_request(1.0))
    assert (refused.status, "has no available versions" in refused.error) == (503, True)
    assert server.metric("penstock_model_ready", "puppet") == 0
    (folder / "1" / "model.py").write_text(good)
    eventually(lambda: server.get("/v2/models/puppet/ready").status == 200, "it is not back")
    assert server.infer("puppet", json_request(1.0)).status == 200


def test_a_worker_without_memory_is_reported_as_that(
    front: str, serve: Callable[..., Served], tmp_path: Path
) -> None:
    """The model's own allocation fails: the batch gets that as its error, and the worker stays."""
    write_model(tmp_path / "models" / "puppet", "puppet", "max_batch_size: 4\n" + PUPPET)
    server = serve(tmp_path / "models", front).wait_ready()
    before = server.workers("puppet")
    answer = server.infer("puppet", json_request(1.0, parameters={"allocate": 1 << 50}))
    assert answer.status == 500
    assert "out of memory" in answer.error.lower(), answer.error
    assert server.workers("puppet") == before
    assert server.infer("puppet", json_request(1.0)).status == 200
