"""`--rate-limit`: instances of different models that share what there is of a resource, on the running server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from puppets import Gate, row
from served import Served
from served_models import PUPPET, write_model
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("rate_limiter")]

MODELS = {"first": 2, "second": 2, "small": 1, "greedy": 9, "free": 0}


@pytest.fixture
def limited(front: str, serve: Callable[..., Served], tmp_path: Path) -> Served:
    """A server where there are three of a resource."""
    for model, count in MODELS.items():
        resources = f'resources [ {{ name: "R" count: {count} }} ]' if count else ""
        config = f"max_batch_size: 1\ninstance_group [ {{ rate_limiter {{ {resources} }} }} ]"
        write_model(tmp_path / "models" / model, "puppet", config + PUPPET)
    return serve(
        tmp_path / "models",
        front,
        "--rate-limit=execution_count",
        "--rate-limit-resource=R:3",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--exit-timeout-secs=0.2",
    ).wait_ready()


def test_the_life_of_resources(limited: Served, tmp_path: Path) -> None:
    lines = limited.index()
    assert [lines[model, "1"]["state"] for model in ("first", "greedy")] == ["READY", "UNAVAILABLE"]
    assert lines["greedy", "1"]["reason"] == (
        'Resource count for "R" is limited to 3 which will prevent scheduling of one or more model instances, the'
        " minimum required count is 9"
    )
    with (
        grpc.insecure_channel(limited.grpc) as channel,
        tritonclient.http.InferenceServerClient(limited.http) as http,
        tritonclient.grpc.InferenceServerClient(limited.grpc) as rpc,
    ):
        with pytest.raises(InferenceServerException, match='count for "R" is limited to 3'):
            http.load_model("greedy")
        for end in (None, "crash", "unload"):
            folder = tmp_path / str(end)
            folder.mkdir()
            _one_waits_for_the_other(limited, channel, rpc, folder, end)
    assert held(limited) == 0


def _one_waits_for_the_other(
    server: Served,
    channel: grpc.Channel,
    rpc: tritonclient.grpc.InferenceServerClient,
    folder: Path,
    end: str | None,
) -> None:
    """Until `first` is done, in whichever way, `second` does not run, and all others do."""
    with Gate(folder, server, channel, "first") as held_up:
        second = Gate(folder, server, channel, "second").send()
        eventually(lambda: waits(server, "second"), "it does not wait")
        assert held(server) == 2
        x = tritonclient.grpc.InferInput("X", [1, 2], "FP32")
        x.set_data_from_numpy(row(1, 2))
        for model in ("small", "free"):
            answer: Any = rpc.infer(model, [x])
            assert answer.as_numpy("Y").tolist() == [[1, 2]]
        assert not second.done()
        if end == "crash":
            pid = int(explained(server, "first")["instances"][0]["name"].split()[1])
            os.kill(pid, signal.SIGKILL)
        elif end == "unload":
            rpc.unload_model("first")
        else:
            held_up.open()
        assert second.result(30).model_name == "second"


def explained(server: Served, model: str) -> dict[str, Any]:
    """What the server says of the model's scheduling."""
    told: dict[str, Any] = server.get(f"/v2/models/{model}/explain").json
    return told


def held(server: Served) -> int:
    """How much of the resource is in use."""
    (resource,) = explained(server, "second")["rate_limiter"]["resources"]
    assert (resource["name"], resource["device"], resource["count"]) == ("R", 0, 3)
    return int(resource["held"])


def waits(server: Served, model: str) -> bool:
    """Whether the model's instance waits for its turn."""
    (instance,) = explained(server, model)["rate_limiter"]["instances"]
    return bool(instance["waits"])
