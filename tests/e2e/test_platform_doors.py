"""SageMaker's and Vertex AI's protocols, each on a port of its own, over both fronts."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import tritonclient.http
from tritonclient.http import InferenceServerClient, InferInput

from served import END_OF_BANNER, FRONTS, HttpAnswer, Served, json_request
from served_models import PUPPET, XY, write_model
from supervised import eventually

pytestmark = pytest.mark.e2e

SAGEMAKER: Final = pytest.mark.extension("sagemaker")
VERTEX_AI: Final = pytest.mark.extension("vertex_ai")
BINARY: Final = "application/vnd.{}-triton.binary+json;json-header-size="
REDIRECT: Final = "X-Vertex-Ai-Triton-Redirect"
TARGET: Final = "X-Amzn-SageMaker-Target-Model"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As SageMaker unpacks models: one folder each, named by nobody."""
    folder = tmp_path_factory.mktemp("unpacked")
    write_model(folder / "hash1" / "model" / "resnet", "mirror", f'name: "resnet"\n{XY}')
    write_model(folder / "hash2" / "model", "doubled", None)
    write_model(folder / "broken", "mirror", XY)
    (folder / "broken" / "1" / "model.py").write_text("raise MemoryError('CUDA out of memory')\n")
    return folder


@pytest.fixture(scope="module", params=FRONTS)
def doors(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Two models, both doors."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "puppet", "puppet", f"max_batch_size: 8\n{PUPPET}")
    write_model(folder / "mirror", "mirror", f"max_batch_size: 8\n{XY}")
    served = Served(
        folder,
        str(request.param),
        *("--model-control-mode=explicit", "--load-model=*"),
        *("--allow-sagemaker", "--sagemaker-port=0", "--sagemaker-default-model=mirror"),
        *("--allow-vertex-ai", "--vertex-ai-port=0", "--vertex-ai-default-model=mirror"),
        *("--vertex-ai-predict-route=/predict/", "--vertex-ai-health-route=/health"),
    )
    try:
        yield served.wait_ready()
        assert served.stop() == 0, served.log
    finally:
        served.close()


def sagemaker(
    doors: Served, method: str, path: str, body: Any = None, **headers: str
) -> HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return doors.request(method, path, body, named, doors.settings.sagemaker_port)


def vertex_ai(doors: Served, body: Any = None, redirect: str = "", **headers: str) -> HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named |= {REDIRECT: redirect} if redirect else {}
    return doors.request("POST", "/predict", body, named, doors.settings.vertex_ai_port)


def binary_request() -> tuple[bytes, int]:
    """Body and length of its JSON, as tritonclient makes them for platforms."""
    tensor = InferInput("X", [2, 3], "FP32")
    tensor.set_data_from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3))
    body, length = InferenceServerClient.generate_request_body([tensor])
    assert isinstance(length, int)
    return bytes(body), length


def check_binary(answer: HttpAnswer, platform: str) -> None:
    """It mirrors `binary_request`."""
    prefix, content_type = BINARY.format(platform), answer.headers["content-type"]
    assert answer.status == 200, answer
    assert content_type.startswith(prefix)
    assert "inference-header-content-length" not in answer.headers
    length = int(content_type.removeprefix(prefix))
    result = tritonclient.http.InferenceServerClient.parse_response_body(
        answer.body, header_length=length
    )
    array = result.as_numpy("Y")
    assert array is not None
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]


# ── SageMaker ───────────────────────────────────────────────────────────────────────────────────────────────────────


@SAGEMAKER
def test_ping(doors: Served) -> None:
    assert sagemaker(doors, "GET", "/ping").status == 200
    assert sagemaker(doors, "POST", "/ping").status == 405


@SAGEMAKER
def test_invocations_of_the_default_model(doors: Served) -> None:
    answer = sagemaker(doors, "POST", "/invocations", json_request(1, 2, id="7"))
    assert answer.headers["content-type"] == "application/json"
    assert (answer.json["model_name"], answer.json["id"]) == ("mirror", "7")
    assert answer.json["outputs"][0]["data"] == [1, 2]


@SAGEMAKER
def test_invocations_with_binary_tensors(doors: Served) -> None:
    body, length = binary_request()
    content_type = f"{BINARY.format('sagemaker')}{length}"
    check_binary(
        sagemaker(doors, "POST", "/invocations", body, Content_Type=content_type), "sagemaker"
    )
    wrong = f"{BINARY.format('sagemaker')}{len(body) + 1}"
    refused = sagemaker(doors, "POST", "/invocations", body, Content_Type=wrong)
    assert (refused.status, "should be in range" in refused.error) == (400, True)


@SAGEMAKER
def test_invocations_of_a_model_that_is_named(doors: Served) -> None:
    answer = sagemaker(doors, "POST", "/invocations", json_request(1), **{TARGET: "puppet"})
    assert answer.json["model_name"] == "puppet"
    unknown = sagemaker(doors, "POST", "/invocations", json_request(1), **{TARGET: "nobody"})
    assert (unknown.status, unknown.error) == (
        404,
        "Request for unknown model: 'nobody' is not found",
    )


@SAGEMAKER
def test_models_come_and_go(doors: Served, unpacked: Path) -> None:
    url = str(unpacked / "hash1" / "model")
    load = {"model_name": "hash1", "url": url}
    assert sagemaker(doors, "POST", "/models", load, **{TARGET: "a.tar.gz"}).status == 200
    again = sagemaker(doors, "POST", "/models", load)
    assert (again.status, again.error) == (409, "model 'hash1' is there already")
    described = {"modelName": "hash1", "modelUrl": f"{url}/resnet"}
    assert sagemaker(doors, "GET", "/models/hash1").json == described
    assert sagemaker(doors, "GET", "/models").json == {"models": [described]}
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}
    invoked = sagemaker(doors, "POST", "/models/hash1/invoke", body, **{TARGET: "a.tar.gz"})
    assert invoked.json["outputs"][0]["data"] == [1, 2]
    assert sagemaker(doors, "DELETE", "/models/hash1").status == 200
    assert not doors.workers("hash1")
    assert sagemaker(doors, "DELETE", "/models/hash1").status == 404
    assert sagemaker(doors, "POST", "/models/hash1/invoke", body).status == 404
    assert ("hash1", "1") not in doors.index()
    # again, from elsewhere
    other = {"model_name": "hash1", "url": str(unpacked / "hash2" / "model")}
    assert sagemaker(doors, "POST", "/models", other).status == 200
    assert sagemaker(doors, "DELETE", "/models/hash1").status == 200


@SAGEMAKER
def test_models_that_can_not_be_loaded(doors: Served, unpacked: Path) -> None:
    def load(name: object, url: object) -> HttpAnswer:
        return sagemaker(doors, "POST", "/models", {"model_name": name, "url": url})

    broken = load("broken", str(unpacked / "broken"))
    assert (broken.status, "out of memory" in broken.error) == (507, True)
    assert not [key for key in doors.index() if key[0] == "broken"]
    assert sagemaker(doors, "GET", "/models").json == {"models": []}
    assert load("x", "/proc/self").status == 400
    assert load("x", str(unpacked / "nowhere")).status == 400
    assert load("../x", str(unpacked / "hash2" / "model")).status == 400
    assert load("mirror", str(unpacked / "hash2" / "model")).status == 409
    assert load(1, 2).status == 400
    assert sagemaker(doors, "POST", "/models", b"{").status == 400


@SAGEMAKER
def test_its_port_has_nothing_else(doors: Served) -> None:
    for path in ("/v2", "/v2/models/mirror/infer", "/metrics", "/docs", "/health"):
        assert sagemaker(doors, "GET", path).status == 404
    assert doors.get("/ping").status == 404


# ── Vertex AI ───────────────────────────────────────────────────────────────────────────────────────────────────────


@VERTEX_AI
def test_health(doors: Served) -> None:
    port = doors.settings.vertex_ai_port
    assert doors.request("GET", "/health", port=port).status == 200
    assert doors.request("GET", "/v2/health/ready", port=port).status == 404
    assert doors.request("GET", "/predict", port=port).status == 405


@VERTEX_AI
def test_predictions_of_the_default_model(doors: Served) -> None:
    answer = vertex_ai(doors, json_request(1, 2))
    assert (answer.json["model_name"], answer.json["outputs"][0]["data"]) == ("mirror", [1, 2])
    body, length = binary_request()
    content_type = f"{BINARY.format('vertex-ai')}{length}"
    check_binary(vertex_ai(doors, body, Content_Type=content_type), "vertex-ai")


@VERTEX_AI
def test_a_header_leads_to_another_model(doors: Served) -> None:
    body, length = binary_request()
    content_type = f"{BINARY.format('vertex-ai')}{length}"
    redirect = "v2/models/mirror/versions/1/infer"
    check_binary(vertex_ai(doors, body, redirect, Content_Type=content_type), "vertex-ai")
    answer = vertex_ai(doors, json_request(1), "v2/models/puppet/infer")
    assert answer.json["model_name"] == "puppet"


@VERTEX_AI
def test_a_header_leads_to_every_route(doors: Served) -> None:
    for route in ("v2", "v2/models/stats", "v2/models/puppet", "v2/models/puppet/config"):
        assert vertex_ai(doors, b"", route).json == doors.get(f"/{route}").json
    assert vertex_ai(doors, b"", "v2/health/live").status == 200
    assert b"nv_inference_count" in vertex_ai(doors, b"", "metrics").body
    names = {line["name"] for line in vertex_ai(doors, {"ready": True}, "v2/repository/index").json}
    assert names >= {"mirror", "puppet"}
    changed = vertex_ai(doors, {"log_verbose_level": 0}, "v2/logging")
    assert changed.json == vertex_ai(doors, b"", "v2/logging").json
    for nowhere in ("v1/models", "v2/nowhere", "docs", "predict"):
        assert vertex_ai(doors, b"", nowhere).status == 404


@VERTEX_AI
def test_a_model_that_was_added_survives_a_crash_of_the_gateway(
    doors: Served, unpacked: Path
) -> None:
    load = {"model_name": "hash2", "url": str(unpacked / "hash2" / "model")}
    assert sagemaker(doors, "POST", "/models", load).status == 200
    os.kill(doors.gateway, signal.SIGKILL)
    eventually(lambda: _serves(doors), "the gateway does not come back")
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [2]}]}
    answer = sagemaker(doors, "POST", "/models/hash2/invoke", body)
    assert answer.json["outputs"][0]["data"] == [4]
    assert sagemaker(doors, "DELETE", "/models/hash2").status == 200


def _serves(doors: Served) -> bool:
    try:
        return sagemaker(doors, "GET", "/ping").status == 200
    except OSError:
        return False


# ── what the environment says ───────────────────────────────────────────────────────────────────────────────────────


@VERTEX_AI
def test_vertex_ai_by_its_environment(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "mirror", "mirror", f"max_batch_size: 8\n{XY}")
    served = Served(
        tmp_path / "models",
        "envoy",
        "--host=127.0.0.1",
        environment={
            "AIP_MODE": "PREDICTION",
            "AIP_HTTP_PORT": "0",
            "AIP_PREDICT_ROUTE": "/v1/endpoints/1:predict",
            "AIP_HEALTH_ROUTE": "/v1/endpoints/1",
        },
    )
    try:
        served.wait_ready()
        assert f"Vertex AI  http://127.0.0.1:{served.settings.vertex_ai_port}" in served.banner
        assert "HTTP " not in served.banner and "gRPC" not in served.banner
        port = served.settings.vertex_ai_port
        eventually(lambda: _is_open(port), "the port does not open")
        assert served.request("GET", "/v1/endpoints/1", port=port).status == 200
        path = "/v1/endpoints/1:predict"
        answer = served.request("POST", path, json_request(3), port=port)
        assert answer.json["outputs"][0]["data"] == [3]
    finally:
        served.close()


def _is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@VERTEX_AI
def test_a_default_model_that_is_not_there_ends_the_start(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(tmp_path / "models" / "a", "mirror", XY)
    routes = ("--vertex-ai-predict-route=/predict", "--vertex-ai-health-route=/health")
    own = ("--allow-vertex-ai", "--vertex-ai-port=0", "--vertex-ai-default-model=nobody")
    served = serve(tmp_path / "models", "grpcio", *own, *routes)
    eventually(lambda: served.process.poll() is not None, "the server goes on")
    assert served.process.returncode == 1
    assert "Expect the default model 'nobody' is loaded" in served.log
    assert END_OF_BANNER not in served.banner
