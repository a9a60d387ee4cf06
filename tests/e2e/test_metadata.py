"""What the server tells of itself and its models: health, metadata, configuration, index."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

import penstock
from grpc_calls import call, failure, infer_request, pb
from penstock.gateway.server_state import EXTENSIONS
from served import Served
from served_models import BROKEN

pytestmark = pytest.mark.e2e


def test_live_and_ready(http: Any, rpc: Any) -> None:
    for client in (http, rpc):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("puppet")
        assert client.is_model_ready("newest_two", "2")
        assert not client.is_model_ready("newest_two", "1")
        assert not client.is_model_ready("nobody")
        assert not client.is_model_ready("broken_init")


def test_not_ready_is_400(server: Served) -> None:
    for path in ("nobody", "broken_init", "broken_config", "newest_two/versions/1"):
        assert server.get(f"/v2/models/{path}/ready").status == 400
    for path in ("/v2/health/live", "/v2/health/ready", "/livez", "/readyz", "/healthz"):
        assert server.get(path).status == 200
    assert server.get("/v2/models/puppet/ready").status == 200


def test_server_metadata(http: Any, rpc: Any) -> None:
    expected = {
        "name": "penstock",
        "version": penstock.__version__,
        "extensions": list(EXTENSIONS),
    }
    assert http.get_server_metadata() == expected
    assert rpc.get_server_metadata(as_json=True) == expected


def test_model_metadata(http: Any, rpc: Any) -> None:
    over_http = http.get_model_metadata("puppet")
    assert over_http == {
        "name": "puppet",
        "versions": ["1"],
        "platform": "python",
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, -1]}],
        "outputs": [
            {"name": "Y", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "TOLD", "datatype": "BYTES", "shape": [-1, 1]},
        ],
    }
    metadata = rpc.get_model_metadata("puppet")
    assert (metadata.name, metadata.versions, metadata.platform) == ("puppet", ["1"], "python")
    for kind in ("inputs", "outputs"):
        tensors = [(t.name, t.datatype, list(t.shape)) for t in getattr(metadata, kind)]
        assert tensors == [tuple(tensor.values()) for tensor in over_http[kind]]


def test_model_metadata_without_a_batch_dimension(http: Any) -> None:
    metadata = http.get_model_metadata("add_sub")
    assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "FP32", "shape": [4]}


@pytest.mark.parametrize("what", ["", "/config"])
@pytest.mark.parametrize(
    ("model", "status", "code", "text"),
    [
        ("nobody", 404, "NOT_FOUND", "Request for unknown model: 'nobody' is not found"),
        (
            "puppet/versions/9",
            404,
            "NOT_FOUND",
            "Request for unknown model: 'puppet' version 9 is not found",
        ),
        (
            "broken_init",
            404,
            "NOT_FOUND",
            "Request for unknown model: 'broken_init' has no available versions",
        ),
        (
            "broken_init/versions/1",
            503,
            "UNAVAILABLE",
            "Request for unknown model: 'broken_init' version 1 is not at ready state",
        ),
    ],
)
def test_models_that_are_not_there(
    server: Served, channel: grpc.Channel, what: str, model: str, status: int, code: str, text: str
) -> None:
    """Statuses, codes and texts are Triton's."""
    answer = server.get(f"/v2/models/{model}{what}")
    assert (answer.status, answer.error) == (status, text)
    name, _, version = model.partition("/versions/")
    method = "ModelConfig" if what else "ModelMetadata"
    request = getattr(pb, f"{method}Request")(name=name, version=version)
    assert failure(channel, method, request) == (code, text)
    assert failure(channel, "ModelInfer", infer_request(name, model_version=version)) == (
        code,
        text,
    )


@pytest.mark.extension("model_configuration")
def test_model_config(http: Any, rpc: Any) -> None:
    config = http.get_model_config("puppet_patient")
    assert config["name"] == "puppet_patient"
    assert config["backend"] == "python"
    assert config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["input"][0]["dims"] == [-1]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 60_000_000
    message = rpc.get_model_config("puppet_patient")
    assert message.config.dynamic_batching.preferred_batch_size == [2]
    assert message.config.input[0].dims == [-1]


@pytest.mark.extension("model_configuration")
def test_config_tells_what_was_completed(http: Any) -> None:
    """`bare` has no configuration file: the ONNX model says it all."""
    config = http.get_model_config("bare")
    assert (config["backend"], config["max_batch_size"] > 0) == ("onnxruntime", True)
    assert config["input"][0]["name"] == "X"
    assert config["input"][0]["dims"] == [3]
    assert http.get_model_metadata("bare")["inputs"][0]["shape"] == [-1, 3]


@pytest.mark.extension("model_configuration")
def test_config_yaml_wins_over_the_class(http: Any) -> None:
    config = http.get_model_config("doubled")
    assert config["max_batch_size"] == 6
    assert "dynamic_batching" in config


def test_version_policies(server: Served, http: Any) -> None:
    expected = {"newest": ["2"], "newest_two": ["2", "3"], "every": ["1", "3"], "chosen": ["1"]}
    index = server.index()
    for model, versions in expected.items():
        assert http.get_model_metadata(model)["versions"] == versions
        assert [version for name, version in index if name == model] == versions


@pytest.mark.extension("model_repository")
def test_index(server: Served, http: Any, rpc: Any) -> None:
    index = server.index()
    assert index["puppet", "1"]["state"] == "READY"
    for model in BROKEN:
        (line,) = (line for (name, _), line in index.items() if name == model)
        assert line["state"] == "UNAVAILABLE"
    over_rpc = rpc.get_model_repository_index()
    assert {(m.name, m.version): m.state for m in over_rpc.models} == {
        key: line["state"] for key, line in index.items()
    }
    assert http.get_model_repository_index() == list(index.values())


@pytest.mark.extension("model_repository")
def test_index_of_ready_models(server: Served) -> None:
    everything = server.request("POST", "/v2/repository/index", {"ready": False}).json
    ready = server.request("POST", "/v2/repository/index", {"ready": True}).json
    assert ready == [line for line in everything if line["state"] == "READY"]
    assert len(ready) == len(everything) - len(BROKEN)
    bad = server.request("POST", "/v2/repository/index", {"ready": 3})
    assert (bad.status, bad.error) == (400, "'ready' must be true or false")


@pytest.mark.parametrize(
    ("model", "version", "reason"),
    [
        (
            "broken_config",
            "",
            "broken_config/config.pbtxt:2: max_batch_size is -3; "
            "expected 0 (no batch dimension) or more",
        ),
        ("broken_empty", "", "no version folder (a number, such as 1/) in "),
        ("broken_init", "1", "importing model.py failed: RuntimeError: no weights (1/model.py:1)"),
        ("broken_onnx", "1", "broken_onnx/1/model.onnx"),
    ],
)
def test_broken_models_say_why(server: Served, model: str, version: str, reason: str) -> None:
    """In the index, the banner and the log."""
    assert reason in server.index()[model, version]["reason"]
    assert reason in server.banner
    assert reason in server.log
    assert model in server.banner


def test_banner(server: Served) -> None:
    front = {"envoy": "Envoy", "grpcio": "grpcio"}[server.front]
    assert f"front: {front}" in server.banner
    for address in (server.http, server.grpc, f"127.0.0.1:{server.settings.metrics_port}"):
        assert address in server.banner


def test_list_of_models(server: Served) -> None:
    models = server.get("/v2/models").json["models"]
    assert models == sorted({name for name, version in server.index() if version} - set(BROKEN))


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/puppet/infer", "POST"),
        ("PUT", "/v2/models/puppet/infer", "POST"),
        ("POST", "/v2", "GET"),
        ("POST", "/v2/models/puppet", "GET"),
        ("GET", "/v2/repository/index", "POST"),
        ("DELETE", "/v2/health/live", "GET"),
    ],
)
def test_wrong_method(server: Served, method: str, path: str, allowed: str) -> None:
    answer = server.request(method, path)
    assert answer.status == 405
    assert answer.headers["allow"] == allowed
    assert answer.error == f"method {method} is not allowed, use {allowed}"


@pytest.mark.parametrize(
    "path", ["/", "/v2/nothing", "/v3", "/v2/models/puppet/nothing", "/metrics", "/v2/models/a/b/c"]
)
def test_unknown_route(server: Served, path: str) -> None:
    answer = server.get(path)
    assert (answer.status, answer.error) == (404, f"unknown route {path}")


@pytest.mark.extension("model_repository")
def test_load_and_unload_need_explicit_mode(server: Served, channel: grpc.Channel) -> None:
    text = "explicit model load / unload is not allowed"
    for action in ("load", "unload"):
        answer = server.request("POST", f"/v2/repository/models/puppet/{action}")
        assert answer.status == 503
        assert answer.error.startswith(text)
    for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
        code, details = failure(channel, name, getattr(pb, f"{name}Request")(model_name="puppet"))
        assert (code, details[: len(text)]) == ("UNAVAILABLE", text)


def test_unknown_method(channel: grpc.Channel) -> None:
    assert failure(channel, "NoSuchMethod")[0] == "UNIMPLEMENTED"
    assert failure(channel, "/some.Service/Method")[0] == "UNIMPLEMENTED"
    stream = channel.stream_stream("/inference.GRPCInferenceService/NoSuchStream")
    with pytest.raises(grpc.RpcError) as caught:
        next(stream(iter([infer_request().SerializeToString()]), timeout=20))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert call(channel, "ServerLive") == b"\x08\x01"
