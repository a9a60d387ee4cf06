"""Load and unload requests with parameters, through NVIDIA's clients, while the server is used and when it crashes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from grpc_calls import failure, pb
from served import FRONTS, Served, json_request
from served_models import XY, write_add_sub, write_model
from supervised import eventually
from traffic import failures, traffic

pytestmark = [pytest.mark.e2e, pytest.mark.extension("model_repository")]

CONFIG = {
    "backend": "python",
    "max_batch_size": 4,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
}
TIMES = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(r, "X").as_numpy() for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", a * FACTOR)]) for a in arrays]
"""
RELOADS = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two repositories; `twice` is in both."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for folder in (one, two):
        write_model(folder / "twice", "mirror", XY)
    write_add_sub(one / "add_sub")
    write_model(two / "scaled", "mirror", f"max_batch_size: 2\n{XY}", versions=(1, 2))
    return one, two


@pytest.fixture(scope="module", params=FRONTS)
def served(request: pytest.FixtureRequest, models: tuple[Path, Path]) -> Iterator[Served]:
    """A server that a test may crash, and of which nothing may be left."""
    one, two = models
    flags = ("--model-control-mode=explicit", "--load-model=add_sub")
    more = (f"--model-repository={two}", "--http-max-input-size=1MiB")
    server = Served(one, request.param, *flags, *more).wait_ready()
    try:
        yield server
        assert server.stop() == 0, server.log
        assert not list((server.folder / "run").iterdir())
    finally:
        server.close()


@pytest.fixture(params=[tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def client(request: pytest.FixtureRequest, served: Served) -> Iterator[Any]:
    """NVIDIA's clients."""
    address = served.http if request.param is tritonclient.http else served.grpc
    with request.param.InferenceServerClient(address) as made:
        yield made


def files(factor: int, version: int = 1) -> dict[str, bytes]:
    """A model that multiplies."""
    return {f"file:{version}/model.py": TIMES.replace("FACTOR", str(factor)).encode()}


def scaled(server: Served, model: str = "scaled") -> tuple[str, float]:
    """Who answers, and what."""
    answer = server.infer(model, json_request(1.0))
    assert answer.status == 200, answer.body
    return answer.json["model_version"], answer.json["outputs"][0]["data"][0]


def overrides(server: Served) -> list[Path]:
    """What the server keeps of what it was given."""
    folder = server.run_dir / "overrides"
    return list(folder.iterdir()) if folder.exists() else []


def test_what_is_given_is_served_until_the_next_load(served: Served, client: Any) -> None:
    client.load_model("scaled", config=json.dumps({**CONFIG, "max_batch_size": 7}))
    assert served.get("/v2/models/scaled/config").json["max_batch_size"] == 7
    assert scaled(served) == ("2", 1.0)
    client.load_model("scaled", config=json.dumps(CONFIG), files=files(5, version=3))
    assert scaled(served) == ("3", 5.0)
    assert ("scaled", "2") not in served.index()
    (kept,) = overrides(served)
    assert kept.stat().st_mode & 0o077 == 0
    policy = {"version_policy": {"specific": {"versions": [1]}}}
    client.load_model("scaled", config=json.dumps({**CONFIG, **policy}))
    assert scaled(served) == ("1", 1.0)
    client.load_model("scaled")
    assert scaled(served) == ("2", 1.0)
    assert served.get("/v2/models/scaled/config").json["max_batch_size"] == 2
    assert overrides(served) == []
    client.load_model("nowhere", config=json.dumps(CONFIG), files=files(3))
    assert scaled(served, "nowhere") == ("1", 3.0)
    client.unload_model("nowhere", unload_dependents=True)
    assert served.infer("nowhere", json_request(1.0)).status == 404
    assert overrides(served) == []


def test_what_was_given_outlives_the_gateway(served: Served) -> None:
    """Killed: the next gateway takes the workers over, and knows what they were loaded from."""
    with tritonclient.http.InferenceServerClient(served.http) as client:
        client.load_model("nowhere", config=json.dumps(CONFIG), files=files(3))
        client.load_model("scaled", config=json.dumps(CONFIG), files=files(7))
        client.load_model("scaled", config=json.dumps(CONFIG), files=files(9))
    workers = served.workers("nowhere"), served.workers("scaled")
    gateway = served.gateway
    os.kill(gateway, signal.SIGKILL)

    def back() -> bool:
        try:
            return bool(served.infer("nowhere", json_request(1.0)).status == 200)
        except OSError:
            return False

    eventually(back, "no other gateway")
    assert served.gateway != gateway
    assert scaled(served, "nowhere") == ("1", 3.0)
    eventually(lambda: served.infer("scaled", json_request(1.0)).status == 200, "not back")
    assert scaled(served) == ("1", 9.0)
    assert (served.workers("nowhere"), served.workers("scaled")) == workers
    with tritonclient.grpc.InferenceServerClient(served.grpc) as rpc:
        rpc.load_model("scaled")
        rpc.unload_model("nowhere")
    assert scaled(served) == ("2", 1.0)
    assert overrides(served) == []


def test_configurations_change_under_load(served: Served) -> None:
    """How many instances there are, and which version is served: nobody notices."""
    before = served.index()
    with (
        tritonclient.grpc.InferenceServerClient(served.grpc) as admin,
        traffic(served) as clients,
    ):
        for number in range(RELOADS):
            count = 2 - number % 2
            groups = [{"count": count, "kind": "KIND_CPU"}]
            admin.load_model("add_sub", config=json.dumps({"instance_group": groups}))
            assert len(served.workers("add_sub")) == count
        admin.load_model("add_sub")
    assert failures(clients) == []
    assert min(client.answers for client in clients) > RELOADS
    assert served.index() == before


def test_the_index_of_one_repository(served: Served, models: tuple[Path, Path]) -> None:
    one, two = models
    for repository, names in (
        ("", ["add_sub", "scaled", "twice"]),
        (two.name, ["scaled", "twice"]),
    ):
        path = f"/v2/repository/{repository}/index" if repository else "/v2/repository/index"
        lines = served.request("POST", path).json
        assert sorted({line["name"] for line in lines}) == names
    with tritonclient.grpc.InferenceServerClient(served.grpc) as rpc:
        index: Any = rpc.get_model_repository_index()
        every = index.models
        assert sorted({line.name for line in every}) == ["add_sub", "scaled", "twice"]
    request = pb.RepositoryIndexRequest(repository_name=str(one), ready=True)
    assert [line.name for line in rpc_index(served, request)] == ["add_sub"]
    answer = served.request("POST", "/v2/repository/three/index")
    assert answer.status == 404
    assert "model repository 'three' is not found" in answer.error


def rpc_index(server: Served, request: Any) -> Any:
    """The lines over gRPC."""
    with tritonclient.grpc.grpc.insecure_channel(server.grpc) as channel:
        stub = tritonclient.grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return stub.RepositoryIndex(request).models


def test_bad_parameters(served: Served, client: Any) -> None:
    for config, given, words in (
        ('{"max_batchsize": 1}', {}, "unknown key 'max_batchsize'; did you mean 'max_batch_size'"),
        ("{}", {"file:../x": b""}, "Invalid file parameter 'file:../x': it has a part"),
        ("{}", {"file:/etc/x": b""}, "it is an absolute path"),
        (None, files(1), "Load parameter 'config' must be specified for model file override"),
        ("{}", {"x": b""}, "unrecognized load parameter 'x'"),
        (json.dumps(CONFIG), {"file:1/model.py": b"raise ValueError('no')"}, "no"),
    ):
        with pytest.raises(InferenceServerException, match=words):
            client.load_model("scaled", config=config, files=given or None)
    assert overrides(served) == []
    assert served.index()["scaled", "2"]["state"] == "READY"


def test_what_is_not_unicode_leaves_the_gateway_as_it_was(served: Served) -> None:
    """The reason goes to the supervisor, too, from which all workers come."""
    path = "/v2/repository/models/scaled/load"
    config = json.dumps({"name": "\ud800"})
    for given in (config, config.encode().decode("unicode_escape", "surrogatepass")):
        answer = served.request("POST", path, {"parameters": {"config": given}})
        assert (answer.status, "text that UTF-8 can hold" in answer.error) == (400, True)
    assert served.request("POST", path).status == 200


def test_bad_bodies(served: Served) -> None:
    path = "/v2/repository/models/scaled/load"
    for body in (
        '{"parameters": {"config": "{}", "file:1/x": "%"}}',
        '{"parameters": {"config": "{}", "file:1/x": "", "file:1/x": ""}}',
        '{"parameters": {"config": "{}", "file:1/a\\u0000b": ""}}',
        '{"parameters": {"config": {}}}',
        '{"parameters": []}',
        "[]",
    ):
        answer = served.request("POST", path, body)
        assert (answer.status, bool(answer.error)) == (400, True), body
    large = {"parameters": {"config": "{}", "file:1/x": "A" * (1 << 20)}}
    assert served.request("POST", path, large).status == 413
    answer = served.request(
        "POST",
        "/v2/repository/models/scaled/unload",
        {"parameters": {"unload_dependents": "yes"}},
    )
    assert answer.status == 400 and "Unable to parse 'unload_dependents'" in answer.error
    with tritonclient.grpc.grpc.insecure_channel(served.grpc) as channel:
        parameters = {"config": pb.ModelRepositoryParameter(bytes_param=b"{}")}
        request = pb.RepositoryModelLoadRequest(model_name="scaled", parameters=parameters)
        assert failure(channel, "RepositoryModelLoad", request) == (
            "INVALID_ARGUMENT",
            "invalid value type for load parameter 'config', expected string_param.",
        )


def test_a_load_goes_on_without_its_client(served: Served) -> None:
    """The client hangs up at once; the model is there soon after."""
    slow = files(2)
    slow["file:1/model.py"] += b"\nimport time\ntime.sleep(0.3)\n"
    with (
        tritonclient.grpc.InferenceServerClient(served.grpc) as rpc,
        pytest.raises(InferenceServerException, match=r"(?i)deadline.exceeded"),
    ):
        rpc.load_model("late", config=json.dumps(CONFIG), files=slow, client_timeout=0.1)
    eventually(lambda: served.infer("late", json_request(1.0)).status == 200, "not loaded")
    assert np.isclose(scaled(served, "late")[1], 2.0)
    assert served.request("POST", "/v2/repository/models/late/unload").status == 200


def test_it_is_advertised(served: Served) -> None:
    extensions = served.get("/v2").json["extensions"]
    assert {"model_repository", "model_repository(unload_dependents)"} <= set(extensions)


def test_one_name_in_two_repositories(
    served: Served, client: Any, models: tuple[Path, Path]
) -> None:
    places = ", ".join(str(folder / "twice") for folder in models)
    with pytest.raises(InferenceServerException) as raised:
        client.load_model("twice")
    twice = "failed to load 'twice', 'twice' is in more than one repository:"
    assert f"{twice} …, …" in raised.value.message()
    assert places in served.log
    assert served.request("POST", "/v2/repository/models/twice/unload").status == 200
