"""Models loaded and unloaded by request."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from served import Served, descriptors, json_request
from served_models import XY, write_add_sub, write_config, write_model
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("model_repository")]

EXPLICIT = "--model-control-mode=explicit"
CLIENTS = (tritonclient.http, tritonclient.grpc)


@pytest.fixture
def explicit(front: str, serve: Callable[..., Served], tmp_path: Path) -> Served:
    """A server of two models, of which one is loaded."""
    write_add_sub(tmp_path / "models" / "add_sub")
    write_model(tmp_path / "models" / "mirror", "mirror", f"max_batch_size: 2\n{XY}")
    served = serve(tmp_path / "models", front, EXPLICIT, "--load-model=add_sub")
    return served.wait_ready()


@pytest.mark.parametrize("module", CLIENTS, ids=["http", "grpc"])
def test_load_and_unload(explicit: Served, module: Any) -> None:
    address = explicit.http if module is tritonclient.http else explicit.grpc
    with module.InferenceServerClient(address) as client:
        assert client.is_model_ready("add_sub")
        assert not client.is_model_ready("mirror")
        client.load_model("mirror")
        assert client.is_model_ready("mirror")
        array = np.ones((1, 3), np.float32)
        tensor = module.InferInput("X", [1, 3], "FP32").set_data_from_numpy(array)
        assert np.array_equal(client.infer("mirror", [tensor]).as_numpy("Y"), array)
        client.unload_model("mirror")
        eventually(lambda: not explicit.workers("mirror"), "the worker is left")
        assert not client.is_model_ready("mirror")
        with pytest.raises(InferenceServerException, match="'mirror' has no available versions"):
            client.infer("mirror", [tensor])
        client.load_model("mirror")
        assert client.is_model_ready("mirror")
    assert explicit.get("/v2/health/ready").status == 200


def test_unloading_returns_everything(explicit: Served) -> None:
    """Processes, descriptors and shared memory."""

    def gone(worker: int) -> bool:
        return worker not in explicit.processes()

    before = descriptors(explicit.gateway), descriptors(explicit.process.pid)
    for _ in range(3):
        assert load(explicit, "mirror").status == 200
        (worker,) = explicit.workers("mirror")
        assert explicit.infer("mirror", json_request(*range(1000))).status == 200
        assert shared_kib(explicit.gateway) > 0
        assert load(explicit, "mirror", "unload").status == 200
        eventually(functools.partial(gone, worker), "a worker is left")
    assert explicit.workers("mirror") == []
    assert mapped_slabs(explicit.gateway) == 2 * len(explicit.workers("add_sub"))
    # the connections of these very requests come and go
    eventually(lambda: descriptors(explicit.gateway) <= before[0] + 2, "descriptors are left")
    assert descriptors(explicit.process.pid) <= before[1]


def test_loading_anew_takes_what_is_there_now(explicit: Served, tmp_path: Path) -> None:
    """Version 2 takes over from version 1; a broken version 3 leaves it in place, and says why."""
    assert load(explicit, "mirror").status == 200
    assert explicit.infer("mirror", json_request(1.0)).json["model_version"] == "1"
    folder = tmp_path / "models" / "mirror"
    source = (folder / "1" / "model.py").read_text()
    (folder / "2").mkdir()
    (folder / "2" / "model.py").write_text(source)
    assert load(explicit, "mirror").status == 200
    assert explicit.infer("mirror", json_request(1.0)).json["model_version"] == "2"
    assert len(explicit.workers("mirror")) == 1

    (folder / "2" / "model.py").write_text("import nothing_of_that_name\n")
    answer = load(explicit, "mirror")
    assert answer.status == 400
    assert "nothing_of_that_name" in answer.error
    assert explicit.infer("mirror", json_request(1.0)).status == 200

    write_config(folder, 'backend: "python"\nmax_batch_size: "many"\n')
    answer = load(explicit, "mirror")
    assert answer.status == 400
    assert "config.pbtxt:2: max_batch_size" in answer.error
    assert explicit.infer("mirror", json_request(1.0)).status == 200


def test_what_can_not_be_loaded(explicit: Served) -> None:
    answer = load(explicit, "nobody")
    assert answer.status == 400
    assert answer.error.startswith("failed to load 'nobody', ")
    answer = load(explicit, "nobody", "unload")
    assert (answer.status, answer.error) == (
        400,
        "failed to unload 'nobody', model is not loaded",
    )
    assert not [name for name, _ in explicit.index() if name == "nobody"]


def test_the_index_lists_what_could_be_loaded(explicit: Served) -> None:
    unloaded = {"name": "mirror", "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert explicit.index()["mirror", ""] == unloaded
    assert explicit.index()["add_sub", "1"]["state"] == "READY"
    # unloading what is not loaded is no error, as long as there is such a model
    assert load(explicit, "mirror", "unload").status == 200
    assert load(explicit, "mirror").status == 200
    assert explicit.index()["mirror", "1"]["state"] == "READY"
    assert load(explicit, "mirror", "unload").status == 200
    assert explicit.index()["mirror", "1"] == {**unloaded, "version": "1"}


def load(served: Served, model: str, action: str = "load") -> Any:
    """A load or unload request's answer."""
    return served.request("POST", f"/v2/repository/models/{model}/{action}")


def mapped_slabs(pid: int) -> int:
    """How many slabs a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return len({line.split()[4] for line in lines if "penstock-slab" in line})


def shared_kib(pid: int) -> int:
    """Shared memory that a process has resident, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "RssShmem" in line)
