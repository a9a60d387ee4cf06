"""Which model's files gave an answer, in the answer itself where its client asks, and where a version comes from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from cryptography.hazmat.primitives.asymmetric import ec

from grpc_calls import failure, infer, infer_request
from penstock.cli import main
from penstock.model_digest import folder_digest
from penstock.trust.signing import sign_version
from served import Served, json_request
from served_models import write_add_sub
from streamers import bare_stream
from trusted_models import write_public

pytestmark = [pytest.mark.e2e, pytest.mark.extension("parameters")]

ASKS = {"model_digest": True}
ROW = np.array([[1, 2, 3]], np.float32)


@pytest.fixture(scope="session")
def digest(repository: Path) -> str:
    """Of the model `bare`."""
    return folder_digest(repository / "bare" / "1")


@pytest.mark.parametrize("binary", [False, True])
def test_http(http: tritonclient.http.InferenceServerClient, digest: str, binary: bool) -> None:
    tensor = tritonclient.http.InferInput("X", [1, 3], "FP32")
    tensor.set_data_from_numpy(ROW, binary_data=binary)
    output = tritonclient.http.InferRequestedOutput("Y", binary_data=binary)
    result = http.infer("bare", [tensor], outputs=[output], parameters=ASKS)
    assert result.get_response()["parameters"] == {"model_digest": digest}
    array = result.as_numpy("Y")
    assert array is not None and array.tolist() == ROW.tolist()
    plain = http.infer("bare", [tensor], outputs=[output])
    assert "parameters" not in plain.get_response()


def test_grpc(channel: grpc.Channel, digest: str) -> None:
    asks = infer(channel, infer_request("bare", ROW, parameters=ASKS))
    assert asks.parameters["model_digest"].string_param == digest
    assert not infer(channel, infer_request("bare", ROW)).parameters
    no = infer_request("bare", ROW, parameters={"model_digest": False})
    assert not infer(channel, no).parameters


def test_streams(channel: grpc.Channel, digest: str) -> None:
    with bare_stream(channel) as stream:
        stream.send_bytes(infer_request("bare", ROW, id="a", parameters=ASKS).SerializeToString())
        stream.send_bytes(infer_request("bare", ROW, id="b").SerializeToString())
        told, plain = (stream.next().infer_response for _ in range(2))
    assert told.parameters["model_digest"].string_param == digest
    assert told.parameters["triton_final_response"].bool_param
    assert set(plain.parameters) == {"triton_final_response"}


def test_generate(server: Served, repository: Path) -> None:
    body = {"X": "hi", "parameters": ASKS}
    answer = server.request("POST", "/v2/models/text/generate", body).json
    assert answer["model_digest"] == folder_digest(repository / "text" / "1")


def test_each_version_has_its_own(server: Served, repository: Path) -> None:
    told = {}
    for version in ("1", "3"):
        path = f"/v2/models/every/versions/{version}/infer"
        answer = server.request("POST", path, json_request(1.0, parameters=ASKS))
        told[version] = answer.json["parameters"]["model_digest"]
    # their files are the same
    assert told["1"] == told["3"] == folder_digest(repository / "every" / "1")


def test_what_is_no_wish(server: Served, channel: grpc.Channel) -> None:
    answer = server.infer("bare", json_request(1, 2, 3, parameters={"model_digest": "yes"}))
    assert (answer.status, "Unable to parse 'model_digest'" in answer.error) == (400, True)
    code, text = failure(
        channel, "ModelInfer", infer_request("bare", ROW, parameters={"model_digest": 1})
    )
    assert code == "INVALID_ARGUMENT" and "model_digest" in text


def test_lineage_of_a_folder(
    server: Served, repository: Path, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = server.get("/v2/models/bare/lineage").json
    assert (told["model"], told["version"], told["digest"]) == ("bare", "1", digest)
    assert [file["path"] for file in told["files"]] == ["model.onnx"]
    assert (told["release"], told["registry"], told["steps"]) == (None, None, [])
    url = f"--url=http://{server.http}"
    assert main(["models", "lineage", "bare", url]) == 0
    shown = capsys.readouterr().out
    assert digest in shown and "model.onnx" in shown and "not from a registry" in shown
    assert main(["models", "lineage", "every", "3", "--json", url]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == "3"
    assert main(["models", "lineage", "nobody", url]) == 1
    assert "unknown model 'nobody'" in capsys.readouterr().err


def test_lineage_of_a_signed_model(
    serve: Callable[..., Served], tmp_path: Path, front: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "models" / "add_sub"
    write_add_sub(model)
    before = folder_digest(model / "1")
    key = ec.generate_private_key(ec.SECP256R1())
    write_public(tmp_path / "release.pub", key)
    sign_version(model, 1, key)
    settings = tmp_path / "penstock.toml"
    settings.write_text(
        '[artifacts]\nstate_file = "releases.json"\n[[artifacts.trust]]\npublic_keys = ["release.pub"]\n'
    )
    server = serve(tmp_path / "models", front, f"--config={settings}").wait_ready()
    told: Any = server.get("/v2/models/add_sub/lineage").json
    # that of before it was signed
    assert told["digest"] == before
    release = told["release"]
    assert release["signer"] and release["serial"] > 0 and release["created"]
    assert not release["encrypted"]
    assert main(["models", "lineage", "add_sub", f"--url=http://{server.http}"]) == 0
    shown = capsys.readouterr().out
    assert release["signer"] in shown and f"release  {release['serial']}" in shown
