"""Mode poll: what happens to the folders happens to the models, while clients ask."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from served import Served, json_request
from served_models import XY, write_add_sub, write_model
from supervised import eventually
from traffic import Client, failures, traffic

pytestmark = [pytest.mark.e2e, pytest.mark.extension("model_repository")]

FLAGS = ("--model-control-mode=poll", "--repository-poll-secs=0.1")


def test_the_folders_are_followed_under_load(
    front: str, serve: Callable[..., Served], tmp_path: Path
) -> None:
    models = tmp_path / "models"
    folder = models / "add_sub"
    write_add_sub(folder)
    write_model(models / "still", "mirror", f"max_batch_size: 2\n{XY}")
    server = serve(models, front, *FLAGS).wait_ready()
    still = server.workers("still")
    with traffic(server) as clients:
        answered_by(clients, "1")
        # a file that is being copied: what is there is no model yet
        (folder / "2").mkdir()
        whole = (folder / "1" / "model.onnx").read_bytes()
        (folder / "2" / "model.onnx").write_bytes(whole[: len(whole) // 2])
        eventually(lambda: reason(server, "2") != "", "half a model is no model")
        assert server.index()["add_sub", "1"]["state"] == "READY"
        (folder / "2" / "model.onnx").write_bytes(whole)
        answered_by(clients, "2")

        (folder / "config.yaml").write_text("instance_group: [{count: 2, kind: KIND_CPU}]\n")
        eventually(lambda: len(server.workers("add_sub")) == 2, "the new configuration")
        (folder / "config.yaml").write_text("instance_groups: []\n")
        eventually(lambda: "unknown key 'instance_groups'" in reason(server, "2"), "no reason")
        assert server.index()["add_sub", "2"]["state"] == "READY"

        (folder / "config.yaml").unlink()
        shutil.rmtree(folder / "2")
        answered_by(clients, "1")
        eventually(lambda: ("add_sub", "2") not in server.index(), "version 2 is left")
    assert failures(clients) == []
    assert server.workers("still") == still

    write_model(models / "new", "mirror", f"max_batch_size: 2\n{XY}")
    eventually(lambda: server.infer("new", json_request(1.0)).status == 200, "no new model")
    shutil.rmtree(folder)
    eventually(lambda: ("add_sub", "1") not in server.index(), "the model is left")
    assert server.infer("add_sub", {}).status == 404
    assert server.workers("add_sub") == []
    refuses_orders(server)


def refuses_orders(server: Served) -> None:
    """In Triton's words, on both wires."""
    words = "explicit model load / unload is not allowed if polling is enabled"
    with tritonclient.http.InferenceServerClient(server.http) as http:
        with pytest.raises(InferenceServerException, match=words):
            http.load_model("still")
        with pytest.raises(InferenceServerException, match=words):
            http.unload_model("still")
    with tritonclient.grpc.InferenceServerClient(server.grpc) as rpc:
        with pytest.raises(InferenceServerException, match=words):
            rpc.load_model("still", config="{}")
        with pytest.raises(InferenceServerException, match=words):
            rpc.unload_model("still")


def reason(server: Served, version: str) -> str:
    """Of the index's line of a version of `add_sub`; empty where there is none."""
    return server.index().get(("add_sub", version), {}).get("reason", "")


def answered_by(clients: list[Client], version: str) -> None:
    """Wait until all clients are answered by that version."""
    eventually(
        lambda: all(client.version == version for client in clients) or bool(failures(clients)),
        f"no answers of version {version}",
    )
